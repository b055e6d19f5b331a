"""Build an index whose inverted lists exceed memory: shards on disk, finally joined into one file.

The joined file has the bytes that `faiss.write_index` would write for the same index in memory, whatever the size of
the shards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np

SHARD_ROWS = 262144
"""Rows of the index in memory at most."""
TAG, FULL, SPARSE = b"ilar", b"full", b"sprs"
"""FAISS file format: the tag of inverted lists, and of list sizes that follow for all lists or for non-empty ones."""
EMPTY_BYTES = 32  # of empty inverted lists: tag, number of lists, code size, SPARSE, and a length of 0


class ShardedIndex:
    """A trained index that rows are added to, of which less than a shard is in memory.

    This applies to indices that end in plain inverted lists (`IVF...,Flat`, `SQ...`, `PQ...`, with or without a
    transform before them). Others, such as Flat, HNSW, or with a refinement, stay in memory entirely.
    """

    def __init__(self, index: Any, folder: Path, *, shard_rows: int | None = None) -> None:
        self._index, self._folder, self._shard_rows = index, folder, shard_rows or SHARD_ROWS
        self._can_shard = _ends_in_lists(index)
        self._shards: list[Path] = []
        self._rows_on_disk = 0

    def add(self, vectors: np.ndarray) -> None:
        """Add vectors (rows, dim) float32; rows are numbered from 0."""
        if not self._can_shard:
            self._index.add(vectors)
            return
        first = self._rows_on_disk + self._index.ntotal
        self._index.add_with_ids(vectors, np.arange(first, first + len(vectors), dtype=np.int64))
        if self._index.ntotal >= self._shard_rows:
            path = self._folder / f"{len(self._shards)}.faiss"
            faiss.write_index(self._index, str(path))
            self._shards.append(path)
            self._rows_on_disk += self._index.ntotal
            self._index.reset()

    def write(self, path: Path) -> None:
        """Write the complete index for `faiss.read_index`."""
        if self._shards:
            with path.open("wb") as stream:
                self._join(stream)
        else:
            faiss.write_index(self._index, str(path))

    def _join(self, stream: BinaryIO) -> None:
        shards = [faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC) for path in self._shards]
        lists: list[Any] = [faiss.extract_index_ivf(shard).invlists for shard in (*shards, self._index)]
        total = self._rows_on_disk + self._index.ntotal
        stream.write(_header(self._index, total))
        ivf = faiss.extract_index_ivf(self._index)
        count, code_size = ivf.nlist, ivf.code_size
        sizes = np.array([sum(shard.list_size(i) for shard in lists) for i in range(count)], np.uint64)
        stream.write(TAG + struct.pack("<QQ", count, code_size) + _list_sizes(sizes))
        for number in range(count):
            for codes in _arrays(lists, number, "get_codes", code_size):
                stream.write(codes.tobytes())
            for ids in _arrays(lists, number, "get_ids", 1):
                stream.write(ids.tobytes())


def _arrays(lists: list[Any], number: int, getter: str, width: int) -> Iterator[np.ndarray]:
    """Yield the codes or ids of one list, shard by shard."""
    for shard in lists:
        rows = shard.list_size(number)
        if rows:
            yield faiss.rev_swig_ptr(getattr(shard, getter)(number), rows * width)


def _ends_in_lists(index: Any) -> bool:
    """Return whether the file of an empty index ends in plain inverted lists."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is None or isinstance(index, faiss.IndexRefine):
        return False
    tail = faiss.serialize_index(index).tobytes()[-EMPTY_BYTES:]
    empty = struct.pack("<QQ", lists.nlist, lists.code_size) + SPARSE + bytes(8)
    return tail == TAG + empty


def _header(index: Any, total: int) -> bytes:
    """Return the bytes before the inverted lists, for an index with `total` rows."""
    parts = [index]
    while isinstance(parts[-1], faiss.IndexPreTransform):
        parts.append(faiss.downcast_index(parts[-1].index))
    row_counts = [part.ntotal for part in parts]
    lists = parts[-1].invlists
    empty = faiss.ArrayInvertedLists(parts[-1].nlist, parts[-1].code_size)
    owns = parts[-1].own_invlists
    try:
        parts[-1].own_invlists = False  # or replacing the lists would free them
        parts[-1].replace_invlists(empty, False)
        for part in parts:
            part.ntotal = total
        return bytes(faiss.serialize_index(index).tobytes()[:-EMPTY_BYTES])
    finally:
        for part, rows in zip(parts, row_counts, strict=True):
            part.ntotal = rows
        parts[-1].replace_invlists(lists, False)
        parts[-1].own_invlists = owns


def _list_sizes(sizes: np.ndarray) -> bytes:
    """Encode list sizes as FAISS does: of all lists, or (number, size) of non-empty ones if they are at most half."""
    filled = np.flatnonzero(sizes)
    if len(filled) > len(sizes) // 2:
        return FULL + struct.pack("<Q", len(sizes)) + sizes.tobytes()
    pairs = np.stack([filled.astype(np.uint64), sizes[filled]], axis=1).ravel()
    return SPARSE + struct.pack("<Q", len(pairs)) + pairs.tobytes()
