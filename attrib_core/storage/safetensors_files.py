"""Read safetensors files: their headers without their numbers and without torch, or all of them."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError, reason
from attrib_core.storage import file_kinds
from attrib_core.storage.file_kinds import Kind

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
EXPECTED = "weights as safetensors"
LENGTH = struct.Struct("<Q")
LARGEST_HEADER = 100_000_000  # the format's own limit
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of a number, of the types that are common."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says before its numbers: type, shape and place of each tensor, and its metadata.

    places: first byte and the byte after the last one, from the beginning of the file.
    """

    dtypes: Mapping[str, str]
    shapes: Mapping[str, Shape]
    places: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, str]


def header(path: Path, *, alone: bool = False) -> Header:
    """Read the header of a file; the file starts with its length in 8 bytes, then it is JSON.

    Raises InputError for a missing file, for another kind of file, and, unless the header `alone` is wanted, where the
    file has other numbers than its header announces, as after a download that was cut off.
    """
    try:
        with path.open("rb") as stream:
            (length,) = LENGTH.unpack(stream.read(LENGTH.size))
            if length > LARGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            content = stream.read(length)
            if len(content) < length:
                raise ValueError(f"a header of {length} bytes of which {len(content)} are there")
            found = _parsed(json.loads(content), LENGTH.size + length)
            if not alone:
                _check_size(found, LENGTH.size + length, path.stat().st_size)
            return found
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {EXPECTED}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise InputError(f"{path}: not readable as safetensors: {_why(path, error)}") from None


def load(
    path: Path, expected: str = EXPECTED, *, mapped: bool = False
) -> tuple[dict[str, torch.Tensor], Mapping[str, str]]:
    """Read all tensors of a file, and its metadata; InputError as `header` raises.

    With `mapped` the tensors are memory maps, for large files that nothing writes while they are in use.
    """
    from safetensors.torch import load as load_tensors
    from safetensors.torch import load_file

    if not path.is_file():  # also for a folder
        raise InputError(f"{path}: no such file; expected {expected}")
    metadata = header(path).metadata
    try:
        return (load_file(path) if mapped else load_tensors(path.read_bytes())), metadata
    except Exception as error:  # of safetensors, and of torch for a type of numbers that it lacks
        raise InputError(f"{path}: not readable as safetensors: {_why(path, error)}") from None


def _why(path: Path, error: Exception) -> str:
    """Say why a file is not readable: what it is instead, or the error."""
    kind = file_kinds.recognise(path)
    return reason(error) if kind in (Kind.SAFETENSORS, Kind.UNKNOWN) else f"it is {kind}"


def _parsed(entries: Any, start: int) -> Header:
    """Check the entries of a header, which ends at `start`; ValueError or the like for what no header has."""
    metadata = entries.pop("__metadata__", None) or {}
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    dtypes, shapes, places = {}, {}, {}
    for key, entry in entries.items():
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        numbers = [*shape, begin, end]
        if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers):
            raise ValueError(f"shape or place of {key!r} are no whole numbers")
        width = SIZES.get(entry["dtype"])
        if width is not None and end - begin != width * math.prod(shape):
            raise ValueError(f"{key!r} has {end - begin} bytes, not those of its shape {shape}")
        dtypes[key], shapes[key], places[key] = entry["dtype"], shape, (start + begin, start + end)
    return Header(dtypes, shapes, places, metadata)


def _check_size(found: Header, start: int, size: int) -> None:
    """Raise ValueError where a file has not the size that its header asks for."""
    needed = max((end for _, end in found.places.values()), default=start)
    if needed > size:
        raise ValueError(f"it has {size} bytes of {needed}: it was cut off, as by a download; fetch it again")
    if needed < size:
        raise ValueError(f"it has {size} bytes, {size - needed} more than its tensors")
