"""Images for the page: small, encoded anew, as data URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image

from attrib_core.data.images import to_rgb

SIDE = 160
QUALITY = 90


def thumbnail(data: bytes, *, where: str, side: int = SIDE) -> str:
    """An encoded image as a data URI of at most `side` pixels a side.

    Small images keep their pixels and are stored without loss where that is
    cheap (flat colours), else as JPEG with full colour resolution. Raises
    InputError, beginning with `where`, for bytes that are no image.
    """
    image = Image.fromarray(to_rgb(data, where=where))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    lossless, lossy = io.BytesIO(), io.BytesIO()
    image.save(lossless, "PNG", optimize=True)
    image.save(lossy, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    kind, chosen = min(("png", lossless), ("jpeg", lossy), key=lambda pair: len(pair[1].getvalue()))
    return f"data:image/{kind};base64,{base64.b64encode(chosen.getvalue()).decode('ascii')}"
