"""Facts about the base model of a config, from its files without loading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.config.planning import safetensors_headers
from attrib_core.config.planning.safetensors_headers import Shape
from attrib_core.diffusion.customization.method import chosen_shapes
from attrib_core.diffusion.pipeline import description
from attrib_core.storage import run_layout

BUNDLED, STABLE_DIFFUSION = "bundled", "stable-diffusion-v1"
STABLE_DIFFUSION_PARAMETERS, STABLE_DIFFUSION_SIDE = 19_169_280, 512
"""Parameters of its cross-attention keys and values, and side of its images, by which it is recognized."""
LARGEST_DIGESTED = 1_000_000_000  # bytes: a digest of more would take too long for a plan


@dataclass(frozen=True)
class Base:
    """A base model: its folder, its kind if it is a known one, resolution, and shapes of its weights."""

    folder: Path
    kind: str | None
    resolution: int
    unet: Mapping[str, Shape]
    widths: list[int]

    def was_used_by(self, run: Path) -> bool:
        """Return whether a run used this base model: the same folder, or a small one with the same content."""
        used = description.read(run / run_layout.BASE_MODEL)
        if used.path == self.folder:
            return True
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return size <= LARGEST_DIGESTED and hashing.folder_digest(self.folder) == used.fingerprint


def read(section: Mapping[str, Any]) -> Base:
    """Read the base model of a config section; InputError for what cannot be opened."""
    family, options = families.split(section)
    files = families.module("base_models", family, "base_model").files(**options)
    folder = next(path for path in files if path.name == "model_index.json").parent.resolve()
    unet = safetensors_headers.unet_shapes(folder)
    side = description.resolution(folder)
    trained = safetensors_headers.parameters(chosen_shapes(unet, ("attn2.to_k", "attn2.to_v")))
    kind = BUNDLED if family == BUNDLED else None
    if (trained, side) == (STABLE_DIFFUSION_PARAMETERS, STABLE_DIFFUSION_SIDE):
        kind = STABLE_DIFFUSION
    return Base(folder, kind, side, unet, description.text_widths(folder))


def try_read(section: Mapping[str, Any]) -> tuple[Base | None, str]:
    """Read the base model; None and the reason if it cannot be opened."""
    try:
        return read(section), ""
    except InputError as error:
        return None, str(error.under("base_model"))
