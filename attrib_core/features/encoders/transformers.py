"""Vision models of the transformers library: CLIP, DINO, DINOv2, DINOv3, SigLIP and SigLIP 2, ViT.

A model is a folder as `save_pretrained` writes it, or a model of the hub's cache: `config.json`,
weights, and `preprocessor_config.json`, whose image processor prepares images. So size, resampling and
normalisation are those that the model's authors ship. Features are, by the type in `config.json`:

- clip: the image embedding, projected into the space that text shares
- siglip: what attention pooling gives, the space that text shares (SigLIP 2 of fixed resolution has this
  type too; those of flexible resolution, type siglip2, are refused: they see no images but lists of patches)
- vit (DINO is one), dinov2, dinov2_with_registers, dinov3_vit: the class token behind the last norm
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.features.networks import transformers_loader, weight_paths
from attrib_core.features.networks.network_encoder import (
    BatchOption,
    DeviceOption,
    NetworkEncoder,
    PrecisionOption,
)
from attrib_core.runtime import devices

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "transformers", "torchvision")
"""Distributions whose version may change the features."""
CONFIG, PROCESSOR = transformers_loader.CONFIG, "preprocessor_config.json"
MODELS = {
    "clip": ("CLIPVisionModelWithProjection", "image_embeds"),
    "clip_vision_model": ("CLIPVisionModelWithProjection", "image_embeds"),
    "siglip": ("SiglipVisionModel", "pooler_output"),
    "siglip_vision_model": ("SiglipVisionModel", "pooler_output"),
    "vit": ("ViTModel", "token"),
    "dinov2": ("Dinov2Model", "token"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "token"),
    "dinov3_vit": ("DINOv3ViTModel", "token"),
}
"""Type of a model in config.json to the class that opens it and what of its output is taken."""


def load(
    *,
    weights: Annotated[
        str,
        Field(
            description="folder that `save_pretrained` of a model and of its image processor wrote, or"
            " hub:owner/model@revision in the hub's cache"
        ),
    ],
    batch: BatchOption = 32,
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
) -> NetworkEncoder:
    """A vision model of transformers with the image processor of its folder.

    No code of the folder is run. Raises InputError for a folder that lacks a file, a type of model
    that is not listed above, weights that lack a tensor or hold another shape, and a processor that
    gives no square image.
    """
    import torch

    folder = weight_paths.folder(weights, CONFIG)
    if transformers_loader.config(folder)["model_type"] in ("siglip2", "siglip2_vision_model"):
        raise InputError(
            f"weights: {folder} is a SigLIP 2 of flexible resolution, which sees lists of patches; take one of"
            " fixed resolution, such as google/siglip2-so400m-patch14-384"
        )
    kind, taken = transformers_loader.choice(folder, MODELS)
    network = transformers_loader.network(
        folder, kind, **({"add_pooling_layer": False} if kind == "ViTModel" else {})
    )
    prepare = _prepare(folder)
    seen = prepare(np.zeros((64, 64, 3), dtype=np.uint8))

    class Features(torch.nn.Module):
        """The part of the output that is the feature."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            output = self.network(pixel_values=images)
            features: torch.Tensor = (
                output.last_hidden_state[:, 0] if taken == "token" else getattr(output, taken)
            )
            return features

    features = Features().eval()
    encoder = NetworkEncoder(
        features,
        prepare,
        dim=_dimension(features, seen, folder),
        batch=batch,
        device=devices.choose(device),
        precision=precision,
    )
    digests = {path.name: hashing.file_digest(path) for path in files(weights=weights)}
    encoder.identity = {"family": "transformers", "files_sha256": digests, "dim": encoder.dim} | (
        {} if precision == "float32" else {"precision": precision}
    )
    return encoder


def files(*, weights: str, **_others: Any) -> list[Path]:
    """The files of the model that decide about features; InputError where one is missing."""
    folder = weight_paths.folder(weights, CONFIG)
    if not (folder / PROCESSOR).is_file():
        raise InputError(f"weights: {folder} lacks {PROCESSOR}, the image processor; save or fetch it beside")
    return [folder / CONFIG, folder / PROCESSOR, *transformers_loader.weight_files(folder)]


def _prepare(folder: Path) -> Any:
    """The folder's image processor as a function of one image, on Pillow where it has such a form."""
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend="pil"
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"weights: {folder / PROCESSOR} opens no image processor: {reason}") from None

    def prepare(image: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 to what the network sees, (height, width, 3) float32."""
        values = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
        if tuple(values.shape[:2]) != (1, 3) or values.ndim != 4:
            raise InputError(
                f"weights: {folder / PROCESSOR} makes {tuple(values.shape)} of an image, expected (1, 3, side, side)"
            )
        found: np.ndarray = values[0].numpy().astype(np.float32).transpose(1, 2, 0)
        return np.ascontiguousarray(found)

    return prepare


def _dimension(features: torch.nn.Module, seen: np.ndarray, folder: Path) -> int:
    """Features an image; InputError where the network refuses what the processor gives."""
    import torch

    with torch.inference_mode():
        try:
            found = features(torch.from_numpy(seen).permute(2, 0, 1)[None])
        except (ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"weights: the model in {folder} refuses images of {seen.shape[:2]}, as {PROCESSOR} makes them"
                f" ({reason})"
            ) from None
    return int(found.shape[1])
