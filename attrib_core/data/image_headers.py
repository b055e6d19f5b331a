"""Read headers without a decoder: the orientation alone from EXIF, and the chunks of a PNG."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence

ORIENTATION = 0x0112
"""Tag of the orientation in EXIF and TIFF: 1 upright, 2 to 8 mirrored or turned."""
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""Letters of `struct` for TIFF's types of whole numbers."""
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
"""First column and row, and steps between columns and rows, of the passes of an interlaced PNG."""
_STEP = 1 << 14
"""Bytes that are decompressed at once."""


def exif_orientation(exif: bytes) -> int | None:
    """Read the orientation from raw EXIF, with or without its header; None without one.

    Only this tag is read, so that others may be damaged. Values other than 1 to 8 are returned as they are.
    """
    while exif.startswith(b"Exif\0\0"):  # some programs write the header twice
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or exif[2:4] not in (b"*\0", b"\0*"):
        return None
    found = None
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, offset)
        for entry in range(offset + 2, offset + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == ORIENTATION and count == 1 and kind in _INTEGERS:
                (found,) = struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)
    except struct.error:  # cut off; what came before counts
        pass
    return found


def plain_xmp(xmp: str) -> str:
    """Write the orientation in XMP as Pillow looks for it: in double quotes, and without spaces."""
    plain = re.sub(r"""tiff:Orientation\s*=\s*["']\s*([0-9])""", r'tiff:Orientation="\1', xmp)
    return re.sub(r"tiff:Orientation\s*>\s*([0-9])", r"tiff:Orientation>\1", plain)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and content of each chunk of a PNG, up to one that is cut off."""
    view, place = memoryview(data), 8
    while place + 8 <= len(data):
        size = int.from_bytes(view[place : place + 4])
        yield bytes(view[place + 4 : place + 8]), view[place + 8 : place + 8 + size]
        place += 12 + size


def png_bytes_missing(data: bytes) -> int:
    """Decompress the pixels of a PNG that a decoder took without keeping them; return how many bytes are not there.

    Neither more bytes than there should be matter, nor the checksum behind them. Raises `struct.error` without a
    complete header.
    """
    chunks = list(png_chunks(data))
    header = b"".join(content for name, content in chunks if name == b"IHDR")
    pixels = [content for name, content in chunks if name == b"IDAT"]
    if not pixels:  # an animation that begins with another chunk
        return 0
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", header)
    bits *= {2: 3, 4: 2, 6: 4}.get(colour, 1)
    missing = 0
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // right), -((top - height) // down)
        missing += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    try:
        for size in _inflated(pixels):
            missing -= size
            if missing <= 0:
                return 0
    except zlib.error:  # the decoder read all the rows before it
        return 0
    return missing


def _inflated(pixels: Sequence[memoryview]) -> Iterator[int]:
    """Decompress the chunks of a PNG's pixels, their checksum aside, and yield how many bytes each step gives."""
    stream, head = zlib.decompressobj(-zlib.MAX_WBITS), 2
    for content in pixels:
        skipped = min(head, len(content))
        head -= skipped
        for start in range(skipped, len(content), _STEP):  # what a step leaves is copied, so in small steps
            rest: bytes | memoryview = content[start : start + _STEP]
            while rest and not stream.eof:
                yield len(stream.decompress(rest, _STEP))
                rest = stream.unconsumed_tail
    while last := stream.decompress(b"", _STEP):
        yield len(last)
