"""The stage `embed`: each piece is encoded once; keys depend on content, and runs share pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embed as part
from attrib_core.features.embedding import embedding_tables, encode
from attrib_core.features.embedding.image_rows import ImageRow
from attrib_core.storage import tables
from attrib_core.storage.store import claims, layout, make_missing, parts, pieces, references
from tests.features.embedding_fixtures import encode_images, noise_images, png
from tests.files_fixtures import rewrite
from tests.storage.claims_fixtures import Holder

IMAGES = [png(one) for one in noise_images(12, size=8)]
SETS = {"a": [0, 1, 2], "b": [3, 4], "c": [5, 6, 7, 8], "d": [9]}


class Counting:
    """The mean colour of an image; counts the images that it has encoded."""

    dim = 3
    identity: dict[str, Any] = {"family": "counting"}

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        found = [image.mean(axis=(0, 1)) for image in images]
        self.seen += len(found)
        return np.array(found, dtype=np.float32)


class CountingBoth(Counting):
    """The mean colour, and the length of the text."""

    dim = 4
    reads = "both"

    def encode(self, images: Iterable[Any]) -> np.ndarray:
        found = [[*image.mean(axis=(0, 1)), len(text)] for image, text in images]
        self.seen += len(found)
        return np.array(found, dtype=np.float32)


def table(path: Path, sets: Sequence[str], *, word: str = "p", name: str = "") -> Path:
    rows = [(one, number) for one in sets for number in SETS[one]]
    images = pa.array([{"bytes": IMAGES[number], "path": None} for _, number in rows], type=tables.IMAGE)
    found = {
        "query_id": pa.array([f"{name}{one}-{number}" for one, number in rows]),
        "exemplar_set": pa.array([one for one, _ in rows]),
        "image": images,
        "prompt": pa.array([word] * len(rows)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(found), path)
    return path


def embed(
    path: Path,
    run: Path,
    *,
    by: str | None = "exemplar_set",
    code: str = "x",
    kind: type[Counting] = Counting,
) -> tuple[pa.Table, int]:
    """The part, and how many images were encoded for it."""
    encoder = kind()
    read: dict[str, Any] = {"id_column": "query_id", "text_column": "prompt", "encoder": encoder}
    wanted = part.find_pieces(path, by=by, conditions={"code": code, "encoder": kind.__name__}, **read)
    stored = part.stored_results(wanted, run=run, job=f"embed/{path.stem}")
    found = pa.concat_tables(part.embed(path, wanted, stored, **read))
    output = run / f"{path.stem}.embeddings.parquet"
    with tables.writer(output, embedding_tables.schema(encoder)) as sink:
        sink.write(found)
    parts.consolidate(output, "embeddings", [(piece.key, len(piece.names)) for piece in wanted], run=run)
    return found, encoder.seen


def test_a_job_waits_for_pieces_that_another_job_encodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run, other = (
        table(tmp_path / "one.parquet", "abcd"),
        tmp_path / "r" / "run",
        tmp_path / "r" / "other",
    )
    read: dict[str, Any] = {"id_column": "query_id", "text_column": "prompt", "encoder": Counting()}
    wanted = part.find_pieces(
        path, by="exemplar_set", conditions={"code": "x", "encoder": "Counting"}, **read
    )
    stored = part.stored_results(wanted, run=run, job="embed/one")
    folder = layout.folder(run, "embeddings")
    holder = Holder(folder, wanted[2].key)

    def slept(_: float) -> None:
        assert embed(path, other)[1] == 10
        holder.end()

    monkeypatch.setattr(claims.time, "sleep", slept)
    with make_missing.all_claimed(stored, "embeddings"):
        found, seen = embed(path, run)
    assert seen == 0 and found.equals(plain(path))
    with make_missing.all_claimed(stored, "embeddings"):  # nothing is missing, and so nothing is claimed
        assert Holder(folder, *stored.keys).end() is None


def plain(path: Path, kind: type[Counting] = Counting) -> pa.Table:
    """The embeddings of a table, computed without the store."""
    ids, features = encode_images(path, kind(), id_column="query_id", text_column="prompt")
    return tables.embedding_table(ids, features)


@pytest.mark.parametrize("by", ["exemplar_set", None])
def test_a_part_is_encoded_once_and_equals_the_encoders_features(tmp_path: Path, by: str | None) -> None:
    path, run = table(tmp_path / "one.parquet", "abcd"), tmp_path / "results" / "run"
    first, seen = embed(path, run, by=by)
    assert seen == 10 and first.equals(plain(path))
    again, seen = embed(path, run, by=by)
    assert seen == 0 and again.equals(first)
    # another run, whose rows have other names
    other = table(tmp_path / "two.parquet", "abcd", name="other ")
    shared, seen = embed(other, tmp_path / "results" / "other", by=by)
    assert seen == 0 and shared.equals(plain(other))
    # the part and the store share one file
    folder = layout.folder(run, "embeddings")
    assert [file.stat().st_ino for file in folder.glob("*.parquet")] == [
        (run / "one.embeddings.parquet").stat().st_ino
    ]


def test_with_additional_sets_only_their_images_are_encoded(tmp_path: Path) -> None:
    run = tmp_path / "results" / "run"
    embed(table(tmp_path / "one.parquet", "bd"), run)
    more = table(tmp_path / "two.parquet", "abcd")
    found, seen = embed(more, run)
    assert seen == len(SETS["a"]) + len(SETS["c"]) and found.equals(plain(more))
    reordered = table(tmp_path / "three.parquet", "dcba")
    found, seen = embed(reordered, run)
    assert seen == 0 and found.equals(plain(reordered))


def test_the_key_contains_all_that_an_encoder_reads(tmp_path: Path) -> None:
    run = tmp_path / "results" / "run"
    path = table(tmp_path / "one.parquet", "ab")
    assert embed(path, run)[1] == embed(path, run, kind=CountingBoth)[1] == 5
    assert embed(path, run, code="y")[1] == 5
    assert embed(path, run, by=None)[1] == 5
    other = table(tmp_path / "one.parquet", "ab", word="other words")
    assert embed(other, run)[1] == 0  # an encoder of images only
    found, seen = embed(other, run, kind=CountingBoth)
    assert seen == 5 and found.equals(plain(other, CountingBoth))
    assert embed(table(tmp_path / "one.parquet", "ab"), run, kind=CountingBoth)[1] == 0


def test_a_damaged_file_is_encoded_again(tmp_path: Path) -> None:
    """Only the pieces that it held are."""
    path, run = table(tmp_path / "one.parquet", "ab"), tmp_path / "results" / "run"
    embed(path, run)
    first = run / "one.embeddings.parquet"
    more = table(tmp_path / "two.parquet", "abcd")
    embed(more, run)
    rewrite(first, first.read_bytes()[:-1] + b"\0")  # and with it its hard link in the store
    again, seen = embed(more, run)
    assert seen == 5 and again.equals(plain(more))
    assert embed(more, run)[1] == 0


def test_two_sets_of_the_same_images_are_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETS, "z", SETS["a"])
    path, run = table(tmp_path / "one.parquet", "abz"), tmp_path / "results" / "run"
    found, seen = embed(path, run)
    assert seen == 8 and found.equals(plain(path))
    assert embed(path, run)[1] == 0


def test_the_run_records_the_keys_that_it_uses(tmp_path: Path) -> None:
    path, run = table(tmp_path / "one.parquet", "ab"), tmp_path / "results" / "run"
    embed(path, run)
    kind, keys = references.by_job(run)["embed/one"]
    assert kind == "embeddings" and len(keys) == 2
    assert all(pieces.finished(layout.folder(run, kind), key) for key in keys)


def test_missing_tables_and_columns_are_named(tmp_path: Path) -> None:
    given: dict[str, Any] = {"id_column": "query_id", "by": None, "encoder": Counting(), "conditions": {}}
    with pytest.raises(InputError, match="gone.parquet: no such table"):
        part.find_pieces(tmp_path / "gone.parquet", **given)
    pq.write_table(pa.table({"query_id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x.parquet: missing columns \['image'\]"):
        part.find_pieces(tmp_path / "x.parquet", **given)


@pytest.mark.parametrize("kept", [0, 5 * len(IMAGES[0]), 1 << 27])
@pytest.mark.parametrize("kind", [Counting, CountingBoth])
def test_the_bytes_held_in_memory_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, kind: type[Counting]
) -> None:
    """No images, those of some sets, or all are held; if all are, the table is read once."""
    path, run = table(tmp_path / "one.parquet", "abcd"), tmp_path / "results" / "run"
    expected = plain(path, kind)
    monkeypatch.setattr(part, "MAX_HELD_BYTES", kept)
    reads: list[str] = []
    for module in (part, encode):
        monkeypatch.setattr(
            module,
            "read_rows",
            lambda *given, real=module.read_rows, **named: (reads.append("read"), real(*given, **named))[1],
        )
    found, seen = embed(path, run, kind=kind)
    assert seen == 10 and found.equals(expected)
    assert len(reads) == (1 if kept == 1 << 27 else 2)
    more = table(tmp_path / "two.parquet", "dcab")
    (run / "one.embeddings.parquet").write_bytes(b"")  # the store holds nothing any more
    found, seen = embed(more, run, kind=kind)
    assert seen == 10
    assert embed(more, run, kind=kind)[1] == 0


@pytest.mark.parametrize("group", [1, 4, 1024])
def test_row_groups_are_not_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """Row groups have one size, whatever the pieces and wherever they come from."""
    monkeypatch.setattr(part, "GROUP", group)
    run = tmp_path / "results" / "run"
    embed(table(tmp_path / "one.parquet", "bd"), run)
    more = table(tmp_path / "two.parquet", "cabd")
    for seen in (7, 0):
        found, encoded = embed(more, run)
        assert encoded == seen and found.equals(plain(more))
    encoder = Counting()
    read: dict[str, Any] = {"id_column": "query_id", "encoder": encoder}
    wanted = part.find_pieces(more, by="exemplar_set", conditions={"code": "z"}, **read)
    stored = part.stored_results(wanted, run=run)
    sizes = [len(one) for one in part.embed(more, wanted, stored, **read)]
    assert sizes == [group] * (10 // group) + [10 % group] * (10 % group > 0)


def test_keys_are_digests_of_image_bytes_and_text() -> None:
    """Written out once more: with another key all images would be encoded again."""

    def part_of(value: bytes | None) -> bytes:
        return b"\0" if value is None else b"\1" + hashlib.sha256(value).digest()

    for image, text in [(b"x", None), (None, "x"), (b"x", "x"), (b"", "")]:
        expected = hashlib.sha256(part_of(image) + part_of(None if text is None else text.encode()))
        assert encode.row_digest(ImageRow("id", image, text, "where")) == expected.hexdigest()


@pytest.mark.parametrize("images", [[None], [{"bytes": None, "path": "x"}]])
def test_an_image_without_bytes_is_named(tmp_path: Path, images: list[Any]) -> None:
    given = [{"bytes": IMAGES[0], "path": None}] * 17 + images
    names = [f"p{number}" for number in range(18)]
    pq.write_table(
        pa.table({"query_id": names, "image": pa.array(given, type=tables.IMAGE)}), tmp_path / "x.parquet"
    )
    with pytest.raises(InputError, match="image 'p17' has no bytes"):
        part.find_pieces(
            tmp_path / "x.parquet", id_column="query_id", by=None, encoder=Counting(), conditions={}
        )
