"""Inverted lists that outgrow memory: kept in shards on disk while an index is built, then joined in one file.

The joined file has the bytes that `faiss.write_index` would write of the same index held in memory, so where
the shards are cut leaves no trace.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np

SHARD = 262144
"""Rows in memory at once."""
MARK, ALL, SOME = b"ilar", b"full", b"sprs"
"""How FAISS begins inverted lists in a file, and says that sizes follow of all lists or of those with rows."""
EMPTY = 32  # bytes of lists without rows: mark, number, bytes a code, SOME, and a length of 0


class Growing:
    """A trained index that rows are added to; what it holds of them in memory stays below a shard.

    So it is for indices that end in plain inverted lists (`IVF...,Flat`, `SQ...`, `PQ...`, with a transform
    before them or without). Others, such as Flat, HNSW, or with a refinement, stay in memory whole.
    """

    def __init__(self, index: Any, folder: Path, *, rows: int | None = None) -> None:
        self._index, self._folder, self._rows = index, folder, rows or SHARD
        self._splits = _ends_in_lists(index)
        self._shards: list[Path] = []
        self._done = 0

    def add(self, vectors: np.ndarray) -> None:
        """Add rows (rows, dim) float32; they are numbered from 0 on."""
        if not self._splits:
            self._index.add(vectors)
            return
        first = self._done + self._index.ntotal
        self._index.add_with_ids(vectors, np.arange(first, first + len(vectors), dtype=np.int64))
        if self._index.ntotal >= self._rows:
            path = self._folder / f"{len(self._shards)}.faiss"
            faiss.write_index(self._index, str(path))
            self._shards.append(path)
            self._done += self._index.ntotal
            self._index.reset()

    def write(self, path: Path) -> None:
        """Write the whole index for `faiss.read_index`."""
        if self._shards:
            with path.open("wb") as stream:
                self._join(stream)
        else:
            faiss.write_index(self._index, str(path))

    def _join(self, stream: BinaryIO) -> None:
        shards = [faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC) for path in self._shards]
        lists: list[Any] = [faiss.extract_index_ivf(shard).invlists for shard in (*shards, self._index)]
        total = self._done + self._index.ntotal
        stream.write(_head(self._index, total))
        ivf = faiss.extract_index_ivf(self._index)
        number, width = ivf.nlist, ivf.code_size
        sizes = np.array([sum(one.list_size(i) for one in lists) for i in range(number)], np.uint64)
        stream.write(MARK + struct.pack("<QQ", number, width) + _sizes(sizes))
        for place in range(number):
            for codes in _each(lists, place, "get_codes", width):
                stream.write(codes.tobytes())
            for ids in _each(lists, place, "get_ids", 1):
                stream.write(ids.tobytes())


def _each(lists: list[Any], place: int, part: str, width: int) -> Iterator[np.ndarray]:
    """The codes or ids of one list, shard by shard."""
    for one in lists:
        rows = one.list_size(place)
        if rows:
            yield faiss.rev_swig_ptr(getattr(one, part)(place), rows * width)


def _ends_in_lists(index: Any) -> bool:
    """Whether a file of the index ends in plain inverted lists, which are empty so far."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is None or isinstance(index, faiss.IndexRefine):
        return False
    tail = faiss.serialize_index(index).tobytes()[-EMPTY:]
    empty = struct.pack("<QQ", lists.nlist, lists.code_size) + SOME + bytes(8)
    return tail == MARK + empty


def _head(index: Any, total: int) -> bytes:
    """The bytes before the inverted lists, of an index that is said to hold so many rows."""
    parts = [index]
    while isinstance(parts[-1], faiss.IndexPreTransform):
        parts.append(faiss.downcast_index(parts[-1].index))
    numbers = [part.ntotal for part in parts]
    lists = parts[-1].invlists
    empty = faiss.ArrayInvertedLists(parts[-1].nlist, parts[-1].code_size)
    owns = parts[-1].own_invlists
    try:
        parts[-1].own_invlists = False  # or the lists would be freed with the exchange
        parts[-1].replace_invlists(empty, False)
        for part in parts:
            part.ntotal = total
        return bytes(faiss.serialize_index(index).tobytes()[:-EMPTY])
    finally:
        for part, number in zip(parts, numbers, strict=True):
            part.ntotal = number
        parts[-1].replace_invlists(lists, False)
        parts[-1].own_invlists = owns


def _sizes(sizes: np.ndarray) -> bytes:
    """Sizes of all lists, or where less than half have rows (number, size) of these, as FAISS chooses."""
    filled = np.flatnonzero(sizes)
    if len(filled) > len(sizes) // 2:
        values = sizes
    else:
        values = np.stack([filled.astype(np.uint64), sizes[filled]], axis=1).ravel()
    return (
        (ALL if len(filled) > len(sizes) // 2 else SOME) + struct.pack("<Q", len(values)) + values.tobytes()
    )
