"""Read `.npy` files of numbers: the only place that opens them. Pickled objects are never read."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np

from attrib_core.common.errors import InputError, reason
from attrib_core.storage.file_kinds import Kind, wrong_kind

EXPECTED = "a .npy file of numbers"
NUMBERS = "biufc"
"""Kinds of NumPy's types that are numbers: bool, integers, floats, complex."""


def read(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Return the array of a `.npy` file, of any order of axes and bytes; `mapped`: a memory map of the file.

    Raises InputError for a file that is missing, broken or another kind of file, for an array of anything but numbers,
    and for a file with more bytes than its header says, such as two arrays one after the other.
    """
    wrong_kind(path, EXPECTED, Kind.NPY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers that Python 2 wrote
            array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:  # a damaged header may raise anything
        raise InputError(f"{path}: not a readable .npy file of numbers ({reason(error)})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMBERS:
        raise InputError(f"{path}: holds {_describe(array)}; expected {EXPECTED}")
    needed, size = _start(path) + array.nbytes, path.stat().st_size
    if needed != size:  # NumPy reads the first array and leaves the rest
        raise InputError(
            f"{path}: has {size} bytes, {size - needed} more than the array {array.shape} of {array.dtype} that its"
            " header announces; expected one array, written whole: save it again"
        )
    return array


def _start(path: Path) -> int:
    """Return where the numbers of a `.npy` file begin, behind its header."""
    with path.open("rb") as stream:
        major = stream.read(8)[6]
        length = "<H" if major == 1 else "<I"
        (header,) = struct.unpack(length, stream.read(struct.calcsize(length)))
        return stream.tell() + int(header)


def _describe(array: object) -> str:
    if isinstance(array, np.ndarray):
        return f"an array {array.shape} of {array.dtype}"
    return f"a {type(array).__name__}"
