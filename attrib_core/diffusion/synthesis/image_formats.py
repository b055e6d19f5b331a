"""How synthesized images are encoded, in words; `drawing.encoded` does it."""

from __future__ import annotations

from attrib_core.common.errors import InputError

WITHOUT_LOSS = ("png", "webp")
WITH_LOSS = ("webp_lossy", "jpeg")


def encoding(image_format: str, quality: int) -> str:
    """What the table says of its images' files: "png", "webp", "webp_lossy 90", "jpeg 90"."""
    if image_format in WITHOUT_LOSS:
        return image_format
    if image_format not in WITH_LOSS:
        choices = ", ".join(map(repr, (*WITHOUT_LOSS, *WITH_LOSS)))
        raise InputError(f"synthesis.image_format: {image_format!r}, choose one of {choices}")
    return f"{image_format} {quality}"
