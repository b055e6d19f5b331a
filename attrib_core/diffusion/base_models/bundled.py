"""The base model that comes with this package: a tiny Stable Diffusion of OpenMoji images, 64 px.

It is trained by `base_recipe`; docs/base_model.md says how and on what.
"""

from __future__ import annotations

from pathlib import Path

from attrib_core.diffusion.pipeline import description
from attrib_core.diffusion.pipeline.description import BaseModel

FOLDER = Path(__file__).parent / "bundled_weights"


def files() -> list[Path]:
    """The files that make the model; InputError where weights are missing."""
    return description.files(FOLDER)


def load() -> BaseModel:
    """The bundled base model, described; `diffusion.components.load` opens it.

    Raises InputError where its weights are missing.
    """
    return description.describe(FOLDER)
