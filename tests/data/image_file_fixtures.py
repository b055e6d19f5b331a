"""Files of images, written byte by byte: TIFF and PNG of kinds that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

TIFF_LETTERS = {1: "B", 3: "H", 4: "I", 5: "II", 10: "ii"}


def tiff(
    tags: Mapping[int, tuple[int, Sequence[int]]],
    data: bytes = b"",
    order: str = "<",
    next_directory: int = 0,
) -> bytes:
    """A TIFF of one directory, or one that claims another; tags are (type, numbers).

    Strip offsets, tag 273, count from the beginning of `data`.
    """
    start = 8 + 2 + 12 * len(tags) + 4
    sizes = {tag: struct.calcsize("<" + TIFF_LETTERS[kind]) * len(v) for tag, (kind, v) in tags.items()}
    pixels = start + sum(size for size in sizes.values() if size > 4)
    entries = further = b""
    for tag, (kind, numbers) in sorted(tags.items()):
        if tag == 273:
            numbers = [number + pixels for number in numbers]
        letters = TIFF_LETTERS[kind]
        count = len(numbers) // len(letters)
        sizes[tag] = struct.calcsize("<" + letters) * count
        raw = struct.pack(order + letters * count, *numbers)
        if len(raw) > 4:
            entries += struct.pack(order + "HHII", tag, kind, count, start + len(further))
            further += raw
        else:
            entries += struct.pack(order + "HHI", tag, kind, count) + raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return (
        head
        + entries
        + struct.pack(order + "I", next_directory)
        + further.ljust(pixels - start, b"\0")
        + data
    )


def packed(numbers: np.ndarray, bits: int, order: str = "<") -> bytes:
    """Numbers, (height, ...), as rows of `bits` a number; those of 16 bits in the byte order."""
    if bits == 16:
        return numbers.astype(f"{order}u2").tobytes()
    rows = numbers.reshape(len(numbers), -1)
    digits = ["".join(format(int(number), f"0{bits}b") for number in row) for row in rows]
    return b"".join(
        int(row, 2).to_bytes(len(row) // 8)
        for row in (row.ljust(-(-len(row) // 8) * 8, "0") for row in digits)
    )


def tiff_image(
    numbers: np.ndarray,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    compressed: bool = False,
    planar: bool = False,
    next_directory: int = 0,
    more: Mapping[int, tuple[int, Sequence[int]]] | None = None,
) -> bytes:
    """A TIFF of numbers, (height, width, samples), raw or by deflate; `planar` stores a plane after another."""
    height, width, samples = numbers.shape
    parts = [numbers[..., [plane]] for plane in range(samples)] if planar else [numbers]
    strips = [packed(part, bits, order) for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    sizes = [len(strip) for strip in strips]
    tags = {
        256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * samples), 259: (3, [8 if compressed else 1]),
        262: (3, [photometric]), 273: (4, [sum(sizes[:number]) for number in range(len(sizes))]),
        277: (3, [samples]), 278: (3, [height]), 279: (4, sizes), 284: (3, [2 if planar else 1]),
    }  # fmt: skip
    return tiff(tags | dict(more or {}), b"".join(strips), order, next_directory)


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(numbers: np.ndarray, bits: int, colour: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG of numbers, (height, width, samples); `before` and `after` are chunks around its pixels."""
    height, width = numbers.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = packed(numbers, bits, ">")
    step = len(rows) // height
    filtered = b"".join(b"\0" + rows[start : start + step] for start in range(0, len(rows), step))
    content = chunk(b"IHDR", header) + b"".join(before) + chunk(b"IDAT", zlib.compress(filtered)) + after
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


def exif(*entries: tuple[int, int, Sequence[int]], order: str = "<", headers: int = 1) -> bytes:
    """Raw EXIF with tags (tag, type, numbers) in its first directory."""
    return b"Exif\0\0" * headers + tiff({tag: (kind, v) for tag, kind, v in entries}, order=order)
