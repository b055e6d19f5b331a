"""Preprocess an image for a network: resize, center crop, normalise.

Bit for bit torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` on Pillow images, which open_clip, timm
and the published benchmark all use, but without importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from attrib_core.common.errors import InputError

Channels = tuple[float, float, float]
Interpolation = Literal["bicubic", "bilinear"]
Fit = Literal["crop", "squash"]

ResizeOption = Annotated[
    int | None,
    Field(
        ge=16,
        le=2048,
        description="shorter side before the center crop, pixels, at least `size`; null: `size`",
    ),
]
InterpolationOption = Annotated[Interpolation, Field(description="interpolation of the resize")]
FitOption = Annotated[
    Fit,
    Field(description="crop: the central square; squash: the whole image, resized to a square"),
]
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocessing:
    """A function from (height, width, 3) uint8 images of any size to (size, size, 3) float32.

    `mean` and `std` refer to pixel values in [0, 1].
    """

    size: int
    mean: Channels
    std: Channels
    resize: int | None = None
    interpolation: Interpolation = "bicubic"
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < self.size:
            raise InputError(f"resize: {self.resize} is less than size, {self.size}; expected at least that")
        if self.resize is not None and self.fit == "squash":
            raise InputError("resize: only with fit: crop; with fit: squash leave it null")
        if min(self.std) <= 0:
            raise InputError(f"std: {list(self.std)}; expected numbers above 0")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the normalised image, channels last."""
        mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
        values: np.ndarray = (self.pixels(image).astype(np.float32) / np.float32(255) - mean) / std
        return values

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Return the resized and cropped image before normalisation, (size, size, 3) uint8.

        As in torchvision, the longer side is rounded down, and half of the surplus pixels, rounded to even, is cut
        off at the left and at the top.
        """
        pil, resampling = Image.fromarray(image), _FILTERS[self.interpolation]
        if self.fit == "squash":
            return np.asarray(pil.resize((self.size, self.size), resampling))
        short = self.resize or self.size
        width, height = (int(short * side / min(pil.size)) for side in pil.size)
        if (width, height) != pil.size:
            pil = pil.resize((width, height), resampling)
        left, upper = (round((side - self.size) / 2) for side in (width, height))
        return np.asarray(pil.crop((left, upper, left + self.size, upper + self.size)))

    def describe(self) -> dict[str, Any]:
        """Return the entries of an encoder's identity: size, mean and std, and other settings that are not default."""
        settings: dict[str, Any] = {"size": self.size, "mean": list(self.mean), "std": list(self.std)}
        if self.resize not in (None, self.size):
            settings["resize"] = self.resize
        if self.interpolation != "bicubic":
            settings["interpolation"] = self.interpolation
        if self.fit != "crop":
            settings["fit"] = self.fit
        return settings
