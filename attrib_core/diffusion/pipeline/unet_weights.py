"""The weights of a base model's UNet, read from its files one tensor at a time, without building the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import weight_files
from attrib_core.diffusion.pipeline.description import SUBFOLDERS
from attrib_core.storage import safetensors_files

STEM = SUBFOLDERS["unet"]


class UNetWeights(Mapping[str, torch.Tensor]):
    """A mapping of state-dict keys to float32 tensors, read on access; `shapes` needs no reading.

    Raises InputError where the folder has no readable `unet/diffusion_pytorch_model*.safetensors`, or several.
    Files of a variant, like fp16, are taken where there are no others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted((folder / "unet").glob(f"{STEM}*.safetensors"))
        paths = [path for path in paths if "." not in path.stem] or paths
        if (folder / "unet" / f"{STEM}.safetensors.index.json").is_file():
            paths = weight_files.of_part(folder / "unet", STEM)
        if not paths:
            raise InputError(
                f"{folder / 'unet'}: no diffusion_pytorch_model*.safetensors; expected a base model in diffusers layout"
            )
        self._paths: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            found = safetensors_files.header(path).shapes
            self.shapes |= found
            self._paths |= dict.fromkeys(found, path)

    def __getitem__(self, key: str) -> torch.Tensor:
        with safe_open(self._paths[key], framework="pt") as stored:
            tensor: torch.Tensor = stored.get_tensor(key)
        return tensor.float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
