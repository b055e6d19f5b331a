"""Names of the encodings of synthesized images; `generate.encode_image` encodes them."""

from __future__ import annotations

from attrib_core.common.errors import InputError

LOSSLESS = ("png", "webp")
LOSSY = ("webp_lossy", "jpeg")


def encoding(image_format: str, quality: int) -> str:
    """Return the entry of the column `image_format`: "png", "webp", "webp_lossy 90" or "jpeg 90"."""
    if image_format in LOSSLESS:
        return image_format
    if image_format not in LOSSY:
        choices = ", ".join(map(repr, (*LOSSLESS, *LOSSY)))
        raise InputError(f"synthesis.image_format: {image_format!r}, choose one of {choices}")
    return f"{image_format} {quality}"
