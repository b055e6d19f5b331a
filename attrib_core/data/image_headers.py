"""Read the orientation from raw EXIF without a decoder of its other tags."""

from __future__ import annotations

import struct

ORIENTATION = 0x0112
"""Tag of the orientation in EXIF and TIFF: 1 upright, 2 to 8 mirrored or turned."""
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""Letters of `struct` for TIFF's types of whole numbers."""


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
