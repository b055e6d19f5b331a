"""The zip archive of a `.pth` file: where the values of each tensor are, and whether they can be read in place.

torch maps an archive without looking whether its entries are compressed or as long as the tensors say, and then returns
other numbers. So a file is mapped only where every storage is checked to be an entry of its own, as it is.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DEEPEST = 100
"""Levels of dictionaries and lists in each other; what programs save has fewer than ten."""
LOCAL_HEADER = 30
"""Bytes of an entry's header in a zip archive, before its name."""
FOLDER_MARK = 0x10
"""The attribute of DOS by which an entry is a folder."""


@dataclass(frozen=True, eq=False)
class Place:
    """The values of a storage in the file: their first byte, and their number in bytes."""

    offset: int
    nbytes: int


@dataclass(frozen=True, eq=False)
class Shapes:
    """The content of a file with tensors of the device "meta", which have no values.

    places  by byte in the skeleton: where a storage is in the file
    """

    content: Any
    places: Mapping[int, Place]

    def place(self, tensor: Any) -> Place | None:
        """Return where the values of a storage are; None where they are not in the file as they are."""
        storage = tensor.untyped_storage()
        found = self.places.get(getattr(storage, "_checkpoint_offset", None) or -1)
        return found if found is not None and found.nbytes == storage.nbytes() else None

    def matrix(self, tensor: Any) -> tuple[int, np.dtype] | None:
        """Return the first byte and the type of a tensor whose values are row by row in the file, or None."""
        import torch

        known = {torch.float32: "f4", torch.float64: "f8", torch.float16: "f2"}
        if not is_dense(tensor) or tensor.dtype not in known or not tensor.is_contiguous() or tensor.is_neg():
            return None
        place, dtype = self.place(tensor), np.dtype(known[tensor.dtype])
        if place is None or (tensor.storage_offset() + tensor.numel()) * dtype.itemsize > place.nbytes:
            return None
        return place.offset + tensor.storage_offset() * dtype.itemsize, dtype

    def can_be_mapped(self) -> bool:
        """Return whether the values of all tensors are in the file as they are.

        Raises ValueError for a content that is nested too deep.
        """
        return all(
            type(one) in _kinds() and not one.__dict__ and is_dense(one) and self.place(one) is not None
            for one in tensors(self.content)
        )


def read_shapes(path: Path) -> Shapes | None:
    """Read a file of torch.save without its values.

    Returns None where they cannot be read in place: the old format, a damaged or unusual archive, an entry that is
    compressed, values of a machine with the other byte order.
    """
    import torch

    try:
        found = _skeleton(path)
        if found is None:
            return None
        skeleton, places = found
        return Shapes(torch.load(skeleton, map_location="meta", weights_only=True), places)
    except Exception:  # torch.load of the file itself says what is wrong, or reads it
        return None


def is_dense(tensor: Any) -> bool:
    """Return whether a tensor is dense: neither sparse, nor nested, nor quantized."""
    import torch

    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized


def _kinds() -> tuple[type, ...]:
    import torch

    return torch.Tensor, torch.nn.Parameter


def tensors(value: Any) -> Iterator[Any]:
    """Yield all tensors in nested dictionaries, lists, tuples and sets, level by level.

    Raises ValueError for more than DEEPEST levels, as of a list that contains itself.
    """
    import torch

    level = [value]
    for _ in range(DEEPEST):
        inner: dict[int, Any] = {}  # each once, however often it is in the others
        for one in level:
            if isinstance(one, torch.Tensor):
                yield one
            elif isinstance(one, dict | list | tuple | set):
                members = (*one.keys(), *one.values()) if isinstance(one, dict) else one
                inner |= {id(member): member for member in members if not isinstance(member, str)}
        if not inner:
            return
        level = list(inner.values())
    raise ValueError(f"nested more than {DEEPEST} deep, or in itself")


def check_entries(path: Path) -> None:
    """Raise ValueError where an archive has an entry with a size that torch would leave unread.

    It takes one that is marked as a folder, or is said to be compressed to nothing, for empty, and then returns as its
    values what was in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # no archive, or a damaged one, of which torch says what is wrong
        return
    for entry in entries:
        is_folder = entry.external_attr & FOLDER_MARK or entry.filename.endswith("/")
        if entry.file_size and (is_folder or not entry.compress_size):
            raise ValueError(f"the entry {entry.filename!r} of {entry.file_size} bytes is marked as empty")


def _skeleton(path: Path) -> tuple[io.BytesIO, dict[int, Place]] | None:
    """Return the archive with a byte in place of each storage, and where the storages are, by that byte."""
    skeleton = io.BytesIO()
    places = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        root = names[0].partition("/")[0] + "/"
        if len(set(names)) != len(names) or not all(name.startswith(root) for name in names):
            return None
        marked = f"{root}byteorder" in names
        order = archive.read(f"{root}byteorder") if marked else b"little"  # what torch takes for granted
        if order != sys.byteorder.encode():
            return None
        with zipfile.ZipFile(skeleton, "w") as written:
            written.writestr(f"{root}byteorder", order)
            written.writestr(f"{root}data.pkl", archive.read(f"{root}data.pkl"))
            for entry in entries:
                if entry.filename.startswith(f"{root}data/"):
                    start = skeleton.tell() + LOCAL_HEADER + len(entry.filename.encode())
                    written.writestr(zipfile.ZipInfo(entry.filename), b"x")
                    if (place := _place(entry, stream)) is not None:
                        places[start] = place
            written.writestr(f"{root}version", archive.read(f"{root}version"))
    skeleton.seek(0)
    return skeleton, places


def _place(entry: zipfile.ZipInfo, stream: io.BufferedReader) -> Place | None:
    """Return where the bytes of an entry are, or None if they are compressed or encrypted."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        return None
    stream.seek(entry.header_offset)
    header = stream.read(LOCAL_HEADER)
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    if header[:4] != b"PK\x03\x04" or stream.read(name) != entry.orig_filename.encode():
        return None
    offset = entry.header_offset + LOCAL_HEADER + name + extra
    end = stream.seek(0, io.SEEK_END)
    return Place(offset, entry.file_size) if offset + entry.file_size <= end else None
