"""The base model of a config as far as its files tell without being loaded."""

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
"""Keys and values of its cross-attention, and side of its images."""
DIGESTED_AT_MOST = 1_000_000_000  # bytes: more would keep a plan waiting


@dataclass(frozen=True)
class Base:
    """Where a base model stands, what it is known as, if as anything, and its shapes."""

    folder: Path
    kind: str | None
    resolution: int
    unet: Mapping[str, Shape]
    widths: list[int]

    def is_that_of(self, run: Path) -> bool:
        """Whether a run was made with it: the same folder, or the same bytes where they are few."""
        used = description.read(run / run_layout.BASE_MODEL)
        if used.path == self.folder:
            return True
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return size <= DIGESTED_AT_MOST and hashing.folder_digest(self.folder) == used.fingerprint


def opened(section: Mapping[str, Any]) -> Base:
    """The base model of the config's section; InputError for what cannot be opened."""
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


def tried(section: Mapping[str, Any]) -> tuple[Base | None, str]:
    """The base model, or None and the reason why it cannot be opened."""
    try:
        return opened(section), ""
    except InputError as error:
        return None, str(error.under("base_model"))
