"""Tables are complete or absent, have the documented columns, and read back as they were written."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PilImage

from attrib_core.common.errors import InputError
from attrib_core.storage import tables, vector_columns
from attrib_core.storage.schemas.registry import abc_per_query_schema


def reject(number: int) -> dict[str, str]:
    return {"image_id": f"image-{number}", "reason": "broken"}


def test_every_column_of_every_table_has_a_meaning():
    for schema in [*tables.SCHEMAS.values(), tables.embedding_schema(3), abc_per_query_schema([5, 10])]:
        assert schema.names, schema
        assert len(set(schema.names)) == len(schema.names)
        for field in schema:
            assert field.metadata[b"meaning"].strip()


def test_every_table_has_documented_files():
    assert set(tables.FILES) == set(tables.SCHEMAS) | {"embeddings", "abc_per_query"}


def test_schema_of_an_unknown_table_names_those_that_exist():
    with pytest.raises(KeyError, match="'pol'.*pool"):
        tables.schema("pol")


def test_write_and_read(tmp_path):
    rows = [reject(number) for number in range(5)]
    tables.write(tmp_path / "deep" / "t.parquet", "rejects", rows)
    table = tables.read(tmp_path / "deep" / "t.parquet", "rejects")
    assert table.to_pylist() == rows
    assert table.schema.field("reason").metadata == {b"meaning": b"why"}
    assert tables.read(tmp_path / "deep" / "t.parquet", "rejects", ["reason"]).column_names == ["reason"]


def test_metadata_is_in_the_file_for_other_tools(tmp_path):
    tables.write(tmp_path / "t.parquet", "rejects", [reject(1)])
    assert pq.read_schema(tmp_path / "t.parquet").field("reason").metadata[b"meaning"] == b"why"


def test_an_empty_table_is_a_table(tmp_path):
    tables.write(tmp_path / "t.parquet", "rejects", [])
    assert tables.read(tmp_path / "t.parquet", "rejects").num_rows == 0
    with tables.writer(tmp_path / "none.parquet", tables.schema("rejects")):
        pass
    assert tables.read(tmp_path / "none.parquet", "rejects").num_rows == 0


def test_a_failing_writer_leaves_nothing_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "t.parquet"
    tables.write(path, "rejects", [reject(1)])
    before = path.read_bytes()
    with pytest.raises(RuntimeError), tables.writer(path, tables.schema("rejects")) as sink:
        sink.write([reject(2)])
        raise RuntimeError("killed")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "t.parquet"
    with tables.writer(path, tables.schema("rejects")) as sink:
        sink.write([reject(1)])
        assert not path.exists()
    assert path.exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image_id": "a"}, "reason"),
        ({"image_id": "a", "reason": "b", "extra": 1}, "extra"),
        ({"image_id": None, "reason": "b"}, "'image_id' has 1 nulls"),
    ],
)
def test_rows_that_do_not_match_the_schema_are_rejected(tmp_path, row, words):
    with pytest.raises(InputError, match=words):
        tables.write(tmp_path / "t.parquet", "rejects", [row])
    assert list(tmp_path.iterdir()) == []


def test_conform_orders_columns_and_reports_mismatches():
    expected = tables.schema("rejects")
    swapped = pa.table({"reason": ["r"], "image_id": ["i"]})
    assert tables.conform(swapped, expected, "x.parquet").column_names == ["image_id", "reason"]
    with pytest.raises(InputError, match=r"x.parquet: column 'reason' is int64, expected string"):
        tables.conform(pa.table({"reason": [1], "image_id": ["i"]}), expected, "x.parquet")
    with pytest.raises(
        InputError, match=r"x.parquet: missing columns \['reason'\], unexpected columns \['why'\]"
    ):
        tables.conform(pa.table({"why": ["r"], "image_id": ["i"]}), expected, "x.parquet")


def test_missing_and_broken_files_are_reported_in_one_line(tmp_path):
    good, cut = tmp_path / "good.parquet", tmp_path / "cut.parquet"
    tables.write(good, "rejects", [reject(1)])
    cut.write_bytes(good.read_bytes()[:100])
    with pytest.raises(InputError, match="nothing.parquet: no such table"):
        tables.read(tmp_path / "nothing.parquet", "rejects")
    with pytest.raises(InputError, match="cut.parquet: not a readable Parquet file") as caught:
        tables.read(cut, "rejects")
    assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other.parquet: missing columns \['reason'\]") as caught:
        tables.read(tmp_path / "other.parquet", "rejects", ["reason"])
    assert "\n" not in str(caught.value)


def test_broken_pages_are_reported(tmp_path):
    path = tmp_path / "t.parquet"
    tables.write(path, "rejects", [reject(number) for number in range(100)])
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="t.parquet: not a readable Parquet file"):
        tables.read(path, "rejects")


def test_parts_are_read_in_the_order_given(tmp_path):
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for number, path in enumerate(paths):
        tables.write(path, "rejects", [reject(number)])
    names = tables.read_parts(reversed(paths), "rejects", ["image_id"]).column("image_id").to_pylist()
    assert names == ["image-2", "image-1", "image-0"]
    with pytest.raises(InputError, match="no parts of table 'rejects'"):
        tables.read_parts([], "rejects")


def test_iterate_streams_all_rows_in_small_batches(tmp_path):
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for start, path in zip((0, 7), paths, strict=True):
        tables.write(path, "rejects", [reject(start + number) for number in range(7)])
    batches = list(tables.iterate(paths, ["image_id"], 3))
    assert max(batch.num_rows for batch in batches) <= 3
    assert [name.as_py() for batch in batches for name in batch.column(0)] == [
        f"image-{n}" for n in range(14)
    ]
    with pytest.raises(InputError, match=r"missing columns \['colour'\]"):
        list(tables.iterate(paths, ["colour"], 3))
    with pytest.raises(InputError, match="no such table"):
        list(tables.iterate([tmp_path / "nothing"], ["image_id"], 3))


@pytest.mark.parametrize("numbers", [[], [0], [3, 4, 5, 11, 12], [7], [0, 29], list(range(30))])
def test_rows_are_read_by_their_numbers(tmp_path, numbers):
    with tables.writer(tmp_path / "r.parquet", tables.schema("rejects")) as sink:
        for start in range(0, 30, 6):  # a row group each
            sink.write([reject(number) for number in range(start, start + 6)])
    found = list(tables.rows_at(tmp_path / "r.parquet", ("image_id",), numbers, batch_size=4))
    assert found == [(number, {"image_id": f"image-{number}"}) for number in numbers]
    with pytest.raises(InputError, match=r"r\.parquet: has no row 30, only 30 rows"):
        list(tables.rows_at(tmp_path / "r.parquet", ("image_id",), [30]))


def test_embeddings_read_back_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).standard_normal((11, 5)).astype(np.float32)
    path = tmp_path / "e.parquet"
    with tables.writer(path, tables.embedding_schema(5)) as sink:
        sink.write(tables.embedding_table([f"a{n}" for n in range(4)], values[:4]))
        sink.write(tables.embedding_table([f"a{n}" for n in range(4, 11)], values[4:]))
    column = pq.read_table(path).column("embedding")
    assert np.array_equal(vector_columns.vectors(column), values)
    assert np.array_equal(vector_columns.vectors(column.slice(3, 6)), values[3:9])
    chunked = pa.chunked_array([column.combine_chunks().slice(0, 2), column.combine_chunks().slice(2)])
    assert np.array_equal(vector_columns.vectors(chunked), values)
    assert vector_columns.vectors(column.slice(0, 0)).shape == (0, 5)
    assert vector_columns.vectors(pa.chunked_array([], type=column.type)).shape == (0, 5)
    with pytest.raises(ValueError, match="2 ids for 11"):
        tables.embedding_table(["a", "b"], values)


def test_images_open_in_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    stream = io.BytesIO()
    PilImage.new("RGB", (3, 2), (10, 200, 30)).save(stream, "PNG")
    row = {field.name: None for field in tables.schema("pool")} | {
        "image_id": "a",
        "image": {"bytes": stream.getvalue(), "path": "a.png"},
        "caption": "green",
        "width": 3,
        "height": 2,
        "perceptual_hash": 0,
        "licence": "CC0-1.0",
        "attribution": "nobody",
    }
    tables.write(tmp_path / "t.parquet", "pool", [row])
    table = tables.read(tmp_path / "t.parquet", "pool")
    data = datasets.Dataset(table).cast_column("image", datasets.Image())
    assert data[0]["image"].size == (3, 2)
    assert data[0]["image"].getpixel((0, 0)) == (10, 200, 30)


def test_json_is_written_atomically(tmp_path):
    path = tmp_path / "deep" / "x.json"
    tables.write_json(path, {"b": 1, "a": "é"})
    assert path.read_text("utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(TypeError):
        tables.write_json(path, {"a": 1, "b": object()})
    assert json.loads(path.read_text("utf-8"))["b"] == 1
    assert list(path.parent.iterdir()) == [path]


def test_streaming_holds_a_row_group_in_memory_and_not_the_file(tmp_path):
    path = tmp_path / "pool.parquet"
    vectors = np.random.default_rng(0).standard_normal((8192, 64), dtype=np.float32)
    with tables.writer(path, tables.embedding_schema(64)) as sink:
        for part in range(10):
            sink.write(tables.embedding_table([f"{part}-{row}" for row in range(8192)], vectors))
    before, most = pa.total_allocated_bytes(), 0
    for _ in tables.iterate([path], ["image_id", "embedding"], 4096):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 5 * vectors.nbytes  # of ten
