"""The files with the weights of a base model: which ones are read, what they hold, and whether they are whole.

Headers alone are read, without torch; `check_numbers` reads all numbers once, `check_not_zero` the first ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attrib_core.common.errors import InputError
from attrib_core.storage import safetensors_files, text_files
from attrib_core.storage.safetensors_files import Shape

EXPONENTS = {
    "F64": ("<u8", 0x7FF0000000000000), "F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80),
}  # fmt: skip
"""Integers as wide as a number, and the bits of its exponent, which are all set if it is NaN or infinite."""
FLOATS = (*EXPONENTS, "F8_E4M3", "F8_E5M2")
"""Types of floating-point numbers."""
ZEROS = "{}: its weights are zeros alone; expected those of a trained network, fetch or convert them again"
BLOCK = 1 << 22
"""Numbers that are tested at once."""


def of_part(folder: Path, stem: str) -> list[Path]:
    """List the weights of a part, such as `unet`, that stock diffusers reads: one file, or the shards of an index.

    Raises InputError for a part without weights, without one of its shards, or with other weights in one file: of
    both diffusers reads the shards, and transformers the one file.
    """
    plain, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = _shards(folder, index)
        if plain.exists() and shards != [plain]:
            raise InputError(
                f"{folder}: has both {plain.name} and {index.name}, which names {len(shards)} other files; remove"
                f" {index.name}, or {plain.name} if the weights are those in shards"
            )
        if shards:
            return shards
    if plain.exists():
        return [plain]
    others = sorted([*folder.glob(f"{stem}*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.ckpt")])
    there = f"; there is {others[0].name}, but" if others else ";"
    raise InputError(
        f"{plain}: no such file{there} the base model lacks the weights of its {folder.name} as safetensors in full"
        " precision"
    )


def _shards(folder: Path, index: Path) -> list[Path]:
    text = text_files.read(index)
    try:
        named = text_files.parse_json(text)["weight_map"].values()
        names = sorted({str(name) for name in named})
    except InputError as error:
        raise InputError(f"{index}: not readable as an index of shards ({error}); fetch it again") from None
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{index}: not readable as an index of shards (no weight_map); fetch it again"
        ) from None
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: no such file, but {index.name} names it; the base model lacks weights of its"
                f" {folder.name}"
            )
    return [folder / name for name in names]


def shapes(folder: Path, stem: str) -> dict[str, Shape]:
    """Read the shapes of a part's tensors, by key; InputError for a file that is broken, cut off or no safetensors."""
    found: dict[str, Shape] = {}
    for path in of_part(folder, stem):
        found |= safetensors_files.header(path).shapes
    return found


def types(folder: Path, stem: str) -> dict[str, str]:
    """Read the types of a part's tensors, as safetensors names them, by key; InputError as `shapes` raises."""
    found: dict[str, str] = {}
    for path in of_part(folder, stem):
        found |= safetensors_files.header(path).dtypes
    return found


def check_not_zero(folder: Path, stem: str) -> None:
    """Raise InputError where all matrices of a part are zeros; those of a sound part are read up to the first number.

    Vectors do not count: those of normalisation are ones before any training.
    """
    some = False
    for path in of_part(folder, stem):
        header = safetensors_files.header(path)
        for key, (begin, end) in header.places.items():
            kind = np.dtype(EXPONENTS.get(header.dtypes[key], ("u1", 0))[0])
            if len(header.shapes[key]) > 1 and header.dtypes[key] in FLOATS:
                some = True
                # without the first bit, which is the sign
                if any(bool((block << 1).any()) for block in _blocks(path, begin, end, kind)):
                    return
    if some:
        raise InputError(ZEROS.format(folder))


def check_numbers(path: Path) -> int:
    """Read all floating-point numbers of a file, and return how many bytes that were.

    Raises InputError for NaN and infinite numbers, with the tensor.
    """
    header, read = safetensors_files.header(path), 0
    for key, (begin, end) in header.places.items():
        if header.dtypes[key] in EXPONENTS and end > begin:
            kind, bits = EXPONENTS[header.dtypes[key]]
            broken = sum(
                int(((block & bits) == bits).sum()) for block in _blocks(path, begin, end, np.dtype(kind))
            )
            if broken:
                raise InputError(
                    f"{path}: tensor {key!r} has {broken} numbers that are NaN or infinite; fetch or convert it again"
                )
            read += end - begin
    return read


def _blocks(path: Path, begin: int, end: int, kind: np.dtype) -> Iterator[np.ndarray]:
    """Yield the numbers between two places of a file as integers."""
    with path.open("rb") as stream:
        stream.seek(begin)
        while begin < end:
            size = min(end - begin, BLOCK * kind.itemsize)
            yield np.frombuffer(stream.read(size), kind)
            begin += size
