"""The base model that comes with this package: a tiny Stable Diffusion trained on OpenMoji images, 64 px.

`base_recipe` trains it; docs/base_model.md describes how and on what.
"""

from __future__ import annotations

from pathlib import Path

from attrib_core.diffusion.pipeline import description
from attrib_core.diffusion.pipeline.description import BaseModel

FOLDER = Path(__file__).parent / "bundled_weights"


def files() -> list[Path]:
    """List the files of the model; InputError where weights are missing."""
    return description.files(FOLDER)


def load() -> BaseModel:
    """Describe the bundled base model, which `diffusion.pipeline.components.load` loads; InputError without weights."""
    return description.describe(FOLDER)
