"""Read `.npy` files of numbers: the only place that opens them. Pickled objects are never read."""

from __future__ import annotations

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

    Raises InputError for a file that is missing, broken or another kind of file, and for an array of anything but
    numbers.
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
    return array


def _describe(array: object) -> str:
    if isinstance(array, np.ndarray):
        return f"an array {array.shape} of {array.dtype}"
    return f"a {type(array).__name__}"
