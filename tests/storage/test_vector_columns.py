"""Vectors of Parquet files: every kind of lists gives the same numbers; nulls and odd lengths are named by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.common.errors import InputError
from attrib_core.storage import parquet_files, tables, vector_columns

VALUES = np.arange(40).reshape(10, 4).astype(np.float32) / 8  # exact in float16
IDS = [f"a{number}" for number in range(10)]


def write(path: Path, kind: pa.DataType, rows: Any = None, **options: Any) -> Path:
    column = pa.array(VALUES.tolist() if rows is None else rows, kind)
    pq.write_table(pa.table({"image_id": IDS[: len(column)], "embedding": column}), path, **options)
    return path


def read(path: Path, rows: int = 3, *, exact: bool = False) -> tuple[list[str], np.ndarray]:
    found = list(vector_columns.stream([path], rows, exact=exact))
    assert [batch.start for batch in found] == list(np.cumsum([0] + [len(one.names) for one in found])[:-1])
    names = [name for batch in found for name in batch.names.to_pylist()]
    return names, np.concatenate([batch.vectors for batch in found])


KINDS = [
    pa.list_(pa.float32(), 4),
    pa.list_(pa.float64(), 4),
    pa.list_(pa.float16(), 4),
    pa.list_(pa.float32()),
    pa.list_(pa.float64()),
    pa.list_(pa.float16()),
    pa.large_list(pa.float32()),
    pa.large_list(pa.float64()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("options", [{}, {"row_group_size": 3}, {"compression": "zstd"}], ids=str)
def test_lists_of_every_kind_give_the_same_vectors(kind: pa.DataType, options: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", kind, **options)
    for rows in (1, 3, 100):
        names, vectors = read(path, rows)
        assert names == IDS and np.array_equal(vectors, VALUES) and vectors.dtype == np.float32
    if kind == pa.list_(pa.float32(), 4):
        assert np.array_equal(read(path, exact=True)[1], VALUES)
    else:
        with pytest.raises(
            InputError, match="a.parquet: column 'embedding' is .*, expected float32 lists of one"
        ):
            read(path, exact=True)


def test_a_column_of_tensors_gives_its_vectors(tmp_path: Path) -> None:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(VALUES)
    pq.write_table(pa.table({"image_id": IDS, "embedding": column}), tmp_path / "a.parquet")
    assert np.array_equal(read(tmp_path / "a.parquet")[1], VALUES)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("row", [0, 4, 9])
def test_nulls_are_named_by_row(kind: pa.DataType, row: int, tmp_path: Path) -> None:
    for null, what in [
        (None, "the embedding is null, expected 4 numbers"),
        ([1, None, 3, 4], "a number of the embedding is null, expected 4 numbers"),
        ([None] * 4, "a number of the embedding is null, expected 4 numbers"),
    ]:
        rows: list[Any] = [*VALUES.tolist()]
        rows[row] = null
        path = write(tmp_path / "a.parquet", kind, rows)
        with pytest.raises(InputError, match=rf"a.parquet: row {row} \('a{row}'\): {what}$"):
            read(path)


def test_a_vector_of_another_length_is_named_by_row(tmp_path: Path) -> None:
    rows = VALUES.tolist()
    rows[7] = [1.0, 2.0, 3.0]
    path = write(tmp_path / "a.parquet", pa.list_(pa.float32()), rows)
    with pytest.raises(InputError, match=r"row 7 \('a7'\): an embedding of 3 numbers, expected 4$"):
        read(path)


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_names_of_every_kind_of_text_are_the_same(kind: pa.DataType, tmp_path: Path) -> None:
    column = pa.array(VALUES.tolist(), pa.list_(pa.float32(), 4))
    names = pa.array([*IDS[:-1], "ü\n"]).cast(kind)
    pq.write_table(pa.table({"image_id": names, "embedding": column}), tmp_path / "a.parquet")
    for exact in (True, False):
        assert read(tmp_path / "a.parquet", exact=exact)[0] == [*IDS[:-1], "ü\n"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.int32()], ids=str)
def test_whole_numbers_are_names_in_files_from_outside(kind: pa.DataType, tmp_path: Path) -> None:
    column = pa.array(VALUES.tolist(), pa.list_(pa.float32(), 4))
    names = pa.array(range(10), kind)
    pq.write_table(pa.table({"image_id": names, "embedding": column}), tmp_path / "a.parquet")
    found, vectors = read(tmp_path / "a.parquet")
    assert found == [str(number) for number in range(10)] and np.array_equal(vectors, VALUES)
    with pytest.raises(InputError, match=f"a.parquet: column 'image_id' is {kind}, expected text$"):
        read(tmp_path / "a.parquet", exact=True)


@pytest.mark.parametrize(
    "names",
    [[0.5] * 10, [True] * 10, [b"x"] * 10, [[1]] * 10, [{"a": "b"}] * 10],
    ids=lambda names: str(names[0]),
)
def test_names_that_are_no_texts_are_refused(names: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array(VALUES.tolist(), pa.list_(pa.float32(), 4))
    pq.write_table(pa.table({"image_id": names, "embedding": column}), path)
    for exact in (True, False):
        with pytest.raises(InputError, match=r"column 'image_id' is .*, expected text") as caught:
            vector_columns.dimension(path, exact=exact)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.int64()], ids=str)
@pytest.mark.parametrize("row", [0, 4, 9])
def test_a_name_that_is_null_is_named_by_row(kind: pa.DataType, row: int, tmp_path: Path) -> None:
    column = pa.array(VALUES.tolist(), pa.list_(pa.float32(), 4))
    names = pa.array([None if one == row else str(one) for one in range(10)])
    names = names.cast(kind) if pa.types.is_integer(kind) else names.dictionary_encode().cast(kind)
    pq.write_table(pa.table({"image_id": names, "embedding": column}), tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=rf"a.parquet: row {row}: the image_id is null, expected the name of"
    ):
        read(tmp_path / "a.parquet")


def test_names_that_are_all_null_are_refused(tmp_path: Path) -> None:
    column = pa.array(VALUES.tolist(), pa.list_(pa.float32(), 4))
    pq.write_table(pa.table({"image_id": pa.nulls(10), "embedding": column}), tmp_path / "a.parquet")
    for exact in (True, False):
        with pytest.raises(InputError, match=r"a.parquet: row 0: the image_id is null"):
            read(tmp_path / "a.parquet", exact=exact)


def bad_column(kind: pa.DataType, rows: Any) -> Callable[[Path], object]:
    return lambda path: write(path, kind, rows)


def twice(path: Path) -> None:
    column = pa.array(VALUES.tolist(), pa.list_(pa.float32(), 4))
    pq.write_table(
        pa.Table.from_arrays([pa.array(IDS), column, column], ["image_id", *["embedding"] * 2]), path
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            bad_column(pa.list_(pa.int32(), 2), [[1, 2]]),
            "'embedding' is fixed_size_list<.*int32.*>.*lists of floats",
        ),
        (bad_column(pa.float32(), [1.0]), "column 'embedding' is float, expected lists of floats"),
        (bad_column(pa.string(), ["1 2"]), "column 'embedding' is string, expected lists of floats"),
        (bad_column(pa.list_(pa.float32()), []), "no embeddings, expected at least one row"),
        (bad_column(pa.list_(pa.float32()), [[]]), "embeddings of 0 dimensions, expected at least one"),
        (bad_column(pa.list_(pa.list_(pa.float32())), [[[1.0]]]), "expected lists of floats"),
        (
            lambda path: pq.write_table(pa.table({"id": IDS}), path),
            r"missing columns \['embedding', 'image_id'\]",
        ),
        (twice, "has the column 'embedding' 2 times, expected it once"),
        (lambda path: path.write_bytes(b"<!doctype html>"), "not a readable Parquet file: is an HTML page"),
        (lambda path: path.write_bytes(b""), "not a readable Parquet file: is an empty file"),
        (lambda path: path.mkdir(), "a folder; expected a Parquet file"),
        (lambda path: None, "no such table; expected a Parquet file"),
    ],
)
def test_other_files_are_refused(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_parts_of_another_dimension_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", pa.list_(pa.float32()))
    second = write(tmp_path / "b.parquet", pa.list_(pa.float64()), [[1.0, 2.0]])
    with pytest.raises(InputError, match=r"b.parquet: embeddings of 2 dimensions, the files before have 4"):
        list(vector_columns.stream([first, second], 5, exact=False))


def test_a_damaged_table_of_a_run_names_the_rule_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "embeddings" / "clip" / "pool" / "part-0003.parquet"
    with tables.writer(path, tables.embedding_schema(4)) as sink:
        sink.write(tables.embedding_table(IDS, VALUES))
    (tmp_path / "run" / "records").mkdir()
    whole = path.read_bytes()
    for content in (whole[:-20], whole[:40], whole[:4] + b"\xff" * 200 + whole[204:]):
        path.write_bytes(content)
        for reading in (lambda: read(path), lambda: parquet_files.read(path)):
            with pytest.raises(
                InputError, match="same snakemake command again: rule embed_pool_part makes it$"
            ):
                reading()
