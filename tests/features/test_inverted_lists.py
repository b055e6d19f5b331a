"""Indices that exceed memory: joined shards give the file of an index in memory, and no other file is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from attrib_core.common.errors import InputError
from attrib_core.features.heads import heads
from attrib_core.features.index import build, inverted_lists
from tests.features.embedding_fixtures import write_parts

pytestmark = pytest.mark.usefixtures("one_faiss_thread")
DIM, ROWS = 8, 400


def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)


@pytest.mark.parametrize(
    ("factory", "can_shard"),
    [
        ("IVF8,Flat", True), ("IVF8,SQ8", True), ("IVF200,SQ8", True), ("IVF4,PQ4x4", True),
        ("PCA4,IVF4,Flat", True), ("OPQ2_4,IVF4,PQ2x4", True), ("IVF8_HNSW8,SQ8", True),
        ("Flat", False), ("SQ8", False), ("HNSW8,Flat", False), ("IVF8,PQ4x4fs", False),
        ("IVF8,SQ8,RFlat", False),
    ],
)  # fmt: skip
def test_joined_shards_are_the_file_that_faiss_writes(tmp_path: Path, factory: str, can_shard: bool) -> None:
    """For shards of all sizes, with empty lists among them, compared with an index in memory."""
    rows = vectors()
    rows[:, 0] += 5  # on one side, so that many lists stay empty
    whole = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    whole.train(rows)
    empty = faiss.serialize_index(whole)
    few = np.repeat(rows[:20], 10, axis=0)
    for number, added in enumerate((rows, few)):
        whole = faiss.deserialize_index(empty)
        blocks = [added[start : start + 50] for start in range(0, len(added), 50)]
        for block in blocks:  # HNSW is built differently from other blocks
            whole.add(block)
        faiss.write_index(whole, str(tmp_path / "whole"))
        for size in (1, 60, 200, 10**6):
            folder = tmp_path / f"{number}-{size}"
            folder.mkdir()
            sharded = inverted_lists.ShardedIndex(faiss.deserialize_index(empty), folder, shard_rows=size)
            for block in blocks:
                sharded.add(block)
            assert len(list(folder.iterdir())) == (len(blocks) // -(-size // 50) if can_shard else 0)
            sharded.write(tmp_path / "joined")
            assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
    assert np.array_equal(
        build.open_index(tmp_path / "joined").search(rows[:5], 3)[1], whole.search(rows[:5], 3)[1]
    )


def test_only_a_shard_is_in_memory_and_only_the_index_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_parts(tmp_path / "pool", [f"p{number}" for number in range(ROWS)], vectors(), 90)
    options: dict[str, Any] = {
        "heads": heads.load(None), "excluded": [], "probes": None, "train_rows": 1000, "seed": 1,
    }  # fmt: skip
    monkeypatch.setattr(inverted_lists, "SHARD_ROWS", 100)
    monkeypatch.setattr(build, "BLOCK", 50)
    held = []
    add = inverted_lists.ShardedIndex.add

    def watched(sharded: Any, rows: np.ndarray) -> None:
        add(sharded, rows)
        held.append(sharded._index.ntotal)

    monkeypatch.setattr(inverted_lists.ShardedIndex, "add", watched)
    built = build.build(pool, tmp_path / "x" / "a.faiss", factory="IVF8,SQ8", **options)
    assert max(held) < 100 and built.index.ntotal == ROWS
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.faiss"]
    with pytest.raises(InputError):
        build.build(pool, tmp_path / "y" / "a.faiss", factory="IVF500,Flat", **options)
    assert not list((tmp_path / "y").iterdir())
