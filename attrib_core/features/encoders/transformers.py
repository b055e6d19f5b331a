"""Vision models of the transformers library: CLIP, DINO, DINOv2, DINOv3, SigLIP and SigLIP 2, ViT.

A model is a folder as `save_pretrained` writes it, or a model of the hub's cache: `config.json`, weights, and
`preprocessor_config.json`, the model's own image processor. So size, interpolation and normalisation are those that
the model's authors ship. Features are, by the type in `config.json`:

- clip: the image embedding, projected into the space shared with text
- siglip: the output of attention pooling, in the space shared with text (SigLIP 2 of fixed resolution has this type
  too; models of flexible resolution, type siglip2, are refused: they take lists of patches, not images)
- vit (DINO is one), dinov2, dinov2_with_registers, dinov3_vit: the class token after the last norm
"""

from __future__ import annotations

from collections.abc import Callable
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
    adapt,
    feature_dim,
)

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
"""By model_type in config.json: the class that loads the model, and the output that is the feature."""


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
    """Load a vision model of transformers with the image processor of its folder.

    No code in the folder is run. Raises InputError for a missing file, a model type that is not listed above, weights
    with a missing tensor or another shape, and a processor that does not return one image.
    """
    folder = weight_paths.folder(weights, CONFIG)
    if transformers_loader.read_config(folder)["model_type"] in ("siglip2", "siglip2_vision_model"):
        raise InputError(
            f"weights: {folder} is a SigLIP 2 of flexible resolution, which takes lists of patches; choose one of"
            " fixed resolution, such as google/siglip2-so400m-patch14-384"
        )
    class_name, output_name = transformers_loader.for_model_type(folder, MODELS)
    extra = {"add_pooling_layer": False} if class_name == "ViTModel" else {}
    model = transformers_loader.load_model(folder, class_name, **extra)
    prepare = _image_processor(folder)

    def embed(network: Any, images: torch.Tensor) -> torch.Tensor:
        output = network(pixel_values=images)
        features: torch.Tensor = (
            output.last_hidden_state[:, 0] if output_name == "token" else getattr(output, output_name)
        )
        return features

    network = adapt(model, embed)
    probe = prepare(np.zeros((64, 64, 3), dtype=np.uint8))
    error = f"weights: the model in {folder} refuses images of {probe.shape[:2]}, as {PROCESSOR} makes them"
    digests = {path.name: hashing.file_digest(path) for path in files(weights=weights)}
    return NetworkEncoder(
        network,
        prepare,
        dim=feature_dim(network, probe.transpose(2, 0, 1)[None], error=error),
        batch_size=batch,
        device=device,
        precision=precision,
        identity={"family": "transformers", "files_sha256": digests},
    )


def files(*, weights: str, **_others: Any) -> list[Path]:
    """Return the files that determine the features; raise InputError if one is missing."""
    folder = weight_paths.folder(weights, CONFIG)
    if not (folder / PROCESSOR).is_file():
        raise InputError(f"weights: {folder} lacks {PROCESSOR}, the image processor; save or fetch it there")
    return [folder / CONFIG, folder / PROCESSOR, *transformers_loader.weight_files(folder)]


def _image_processor(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the folder's image processor as a function of one image, with its Pillow backend if it has one."""
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend="pil"
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"weights: {folder / PROCESSOR} opens no image processor: {reason}") from None

    def prepare(image: np.ndarray) -> np.ndarray:
        """Return the network input of a (height, width, 3) uint8 image, (side, side, 3) float32."""
        values = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
        if tuple(values.shape[:2]) != (1, 3) or values.ndim != 4:
            raise InputError(
                f"weights: {folder / PROCESSOR} returns {tuple(values.shape)} for an image, expected (1, 3, side, side)"
            )
        channels_last: np.ndarray = values[0].numpy().astype(np.float32).transpose(1, 2, 0)
        return np.ascontiguousarray(channels_last)

    return prepare
