"""Networks of the timm library as features: what comes before the classifier, or stages on the way.

With `stages`, features are the means of each stage over its areas, channel by channel, followed by its
deviations if asked. Both are scaled to unit length for the picture, so that stages weigh alike
whatever the size of their activations. Shallow stages come first, and nothing is computed
behind the deepest. Shallow ones see lines, textures and colours, so they tell styles apart; deep ones
see objects.

Weights are a file that the user has, or a preset: weights that an installed
Python package carries, listed in `presets.toml`. Nothing is downloaded.

Arithmetic is float32. The CPU takes one picture at a time: sums inside a batch run in
an order that depends on a picture's place in it, and the bits of an embedding must not
depend on its company. (Measured with tf_efficientnet_lite0 at 128 pixels: an eighth
more time than in batches of 8.) A GPU takes whole batches of `batch` pictures, the last
filled up with black ones; there a picture's place may change last bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

from attrib_core import device as devices
from attrib_core.encoders.timm import weights as weight_files
from attrib_core.encoders.timm.stages import tapped
from attrib_core.encoders.timm.weights import dim, files
from attrib_core.errors import InputError, close_matches

if TYPE_CHECKING:
    import torch

__all__ = ["PACKAGES", "TimmEncoder", "checked", "dim", "files", "load"]

PACKAGES = ("torch", "timm")
"""Distributions whose version may change the features."""
Channels = tuple[float, float, float]


class TimmEncoder:
    """A network that gives `dim` features a picture, not classes."""

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        dim: int,
        size: int,
        batch: int,
        device: str,
        mean: Channels,
        std: Channels,
    ) -> None:
        import torch

        self._network = network.eval().to(memory_format=torch.channels_last).to(device)
        self._size, self._device = size, device
        self._batch = 1 if device == "cpu" else batch
        self._mean, self._std = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
        self.dim = dim
        self.identity: dict[str, Any] = {}

    def encode(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """(height, width, 3) uint8 pictures of any sizes to (pictures, dim) float32.

        The shorter side is resampled (bicubic, up or down) to `size` pixels and the middle
        square is cut out. Taken lazily: at most a batch of pictures is held at once.
        """
        source: Iterator[np.ndarray] = iter(pictures)
        rows: list[np.ndarray] = []
        while chunk := [_square(picture, self._size) for picture in islice(source, self._batch)]:
            blank = np.zeros((self._size, self._size, 3), dtype=np.uint8)
            filled = np.stack(chunk + [blank] * (self._batch - len(chunk)))
            rows.append(self._run(filled)[: len(chunk)])
        return np.concatenate(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _run(self, pictures: np.ndarray) -> np.ndarray:
        import torch

        values = (pictures.astype(np.float32) / np.float32(255) - self._mean) / self._std
        tensor = torch.from_numpy(values).permute(0, 3, 1, 2)  # in memory the channels stay last
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), cudnn:
            features: np.ndarray = self._network(tensor.to(self._device)).float().cpu().numpy()
        return features


def load(
    *,
    architecture: Annotated[
        str, Field(description="name of a network in timm, such as vit_base_patch16_224")
    ],
    weights: Annotated[
        str, Field(description="path of a .safetensors or .pth file, or the name of a preset")
    ],
    size: Annotated[
        int, Field(ge=16, le=1024, description="side of the picture that the network sees, pixels")
    ] = 128,
    batch: Annotated[
        int, Field(ge=1, le=1024, description="pictures a forward pass on a GPU; the CPU takes one at a time")
    ] = 32,
    mean: Annotated[
        Channels | None, Field(description="mean of the pixel values in [0, 1]; null: as trained")
    ] = None,
    std: Annotated[Channels | None, Field(description="their standard deviation; null: as trained")] = None,
    stages: Annotated[
        list[Annotated[int, Field(ge=0)]] | None,
        Field(
            min_length=1,
            description="stages of the network whose activations are the features, rising, as timm counts"
            " them, 0 the shallowest; null: what comes before the classifier",
        ),
    ] = None,
    cells: Annotated[
        int, Field(ge=1, le=64, description="a stage's activations are averaged over cells x cells areas")
    ] = 1,
    deviation: Annotated[
        bool, Field(description="also the standard deviation of each channel of a stage over the picture")
    ] = False,
    device: Annotated[str, Field(description="auto, cpu or cuda")] = "auto",
) -> TimmEncoder:
    """A timm network with weights from a file or a preset.

    `mean` and `std` default to those of the preset, else to those that timm states for the
    architecture. Raises InputError for an unknown architecture or preset, a missing or
    damaged file, tensors that do not fit the network, a size that the network refuses, stages
    that it lacks or that timm cannot tap, and more cells than a stage has places.
    """
    import timm

    checked(stages=stages, cells=cells, deviation=deviation)
    if not timm.is_model(architecture):
        near = close_matches(architecture, timm.list_models())
        raise InputError(f"architecture: {architecture!r} is not in timm, {near}")
    preset = weight_files.presets().get(weights)
    path = weight_files.files(weights=weights)[0]
    if preset and preset["architecture"] != architecture:
        fitting = preset["architecture"]
        raise InputError(f"architecture: {architecture!r} does not fit weights {weights!r}; use {fitting!r}")
    checksum = weight_files.checksum(path, weights, preset)
    network = timm.create_model(architecture, pretrained=False)
    weight_files.fill(network, weight_files.read(path), path, by_order=bool(preset and preset["by_order"]))
    stated = preset or network.pretrained_cfg
    mean, std = mean or tuple(stated["mean"]), std or tuple(stated["std"])
    dim = _features(network, size)
    tap: dict[str, Any] = {}
    if stages is not None:
        tap = {"stages": stages, "cells": cells, "deviation": deviation}
        network = tapped(network, architecture, size, stages=stages, cells=cells, deviation=deviation)
        dim = _features(network, size)
    encoder = TimmEncoder(
        network,
        dim=dim,
        size=size,
        batch=batch,
        device=devices.choose(device),
        mean=mean,
        std=std,
    )
    encoder.identity = {
        "family": "timm",
        "architecture": architecture,
        "weights_sha256": checksum,
        "size": size,
        "mean": list(mean),
        "std": list(std),
        "dim": encoder.dim,
    } | tap
    return encoder


def checked(*, stages: list[int] | None, cells: int, deviation: bool, **others: Any) -> dict[str, Any]:
    """The options as they are; InputError where those of the stages do not agree."""
    if stages is None and cells != 1:
        raise InputError(f"cells: {cells}, but stages is null; name stages, or leave cells at 1")
    if stages is None and deviation:
        raise InputError("deviation: true, but stages is null; name stages, or leave deviation at false")
    if stages is not None and stages != sorted(set(stages)):
        raise InputError(f"stages: {stages}; they rise, each once: {sorted(set(stages))}")
    return {"stages": stages, "cells": cells, "deviation": deviation} | others


def _features(network: Any, size: int) -> int:
    """How many features a picture gets; InputError where the network takes other sizes only."""
    import torch

    try:
        with torch.inference_mode():
            return int(network.eval()(torch.zeros(1, 3, size, size)).shape[1])
    except (AssertionError, RuntimeError) as error:
        side, reason = network.pretrained_cfg["input_size"][-1], str(error).splitlines()[0]
        raise InputError(f"size: the network refuses {size} ({reason}); it was made for {side}") from None


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8: shorter side to `size` by bicubic resampling, then the middle."""
    image = Image.fromarray(picture)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, upper = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, upper, left + size, upper + size)))
