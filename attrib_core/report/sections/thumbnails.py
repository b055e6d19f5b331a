"""Thumbnails of the page, as data URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image

from attrib_core.data.images import to_rgb

SIDE = 160
QUALITY = 90


def thumbnail(data: bytes, *, where: str, side: int = SIDE) -> str:
    """Resize an encoded image to at most `side` pixels a side and return it as a data URI.

    Smaller images keep their size. The format is the smaller of PNG and JPEG with full colour resolution. Raises
    InputError, starting with `where`, for bytes that are not an image.
    """
    image = Image.fromarray(to_rgb(data, where=where))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    lossless, lossy = io.BytesIO(), io.BytesIO()
    image.save(lossless, "PNG", optimize=True)
    image.save(lossy, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    kind, chosen = min(("png", lossless), ("jpeg", lossy), key=lambda pair: len(pair[1].getvalue()))
    return f"data:image/{kind};base64,{base64.b64encode(chosen.getvalue()).decode('ascii')}"
