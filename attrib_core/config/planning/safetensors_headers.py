"""Shapes of weights from the headers of safetensors files, and sizes of such files, without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from attrib_core.common.errors import InputError
from attrib_core.storage import safetensors_files
from attrib_core.storage.safetensors_files import LENGTH, Shape

ALIGNED, FLOAT32 = 8, 4


def shapes(path: Path) -> dict[str, Shape]:
    """Read the shapes of the tensors of a safetensors file, by key; InputError for another file.

    A plan needs no numbers, so they may still be on their way here.
    """
    return dict(safetensors_files.header(path, alone=True).shapes)


def unet_shapes(folder: Path) -> dict[str, Shape]:
    """Read the shapes of the UNet's weights in a folder of diffusers layout, from all its files.

    Files of a variant, such as fp16, are used only if there are no others.
    """
    paths = sorted((folder / "unet").glob("diffusion_pytorch_model*.safetensors"))
    paths = [path for path in paths if "." not in path.stem] or paths
    if not paths:
        raise InputError(f"{folder / 'unet'}: no diffusion_pytorch_model*.safetensors")
    found: dict[str, Shape] = {}
    for path in paths:
        found |= shapes(path)
    return found


def parameters(tensors: Mapping[str, Shape]) -> int:
    """Return the total number of elements of tensors."""
    return sum(math.prod(shape) for shape in tensors.values())


def file_bytes(tensors: Mapping[str, Shape], metadata: Mapping[str, str] | None = None) -> int:
    """Return the size in bytes of a safetensors file with float32 tensors of these shapes."""
    entries: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for key, shape in sorted(tensors.items()):
        end = offset + FLOAT32 * math.prod(shape)
        entries[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header = len(json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode())
    return LENGTH.size + math.ceil(header / ALIGNED) * ALIGNED + offset
