"""A base model in a local folder in diffusers layout: Stable Diffusion 1 or 2, SDXL, or a fine-tuned one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from attrib_core.diffusion.pipeline import description
from attrib_core.diffusion.pipeline.description import BaseModel


def files(*, path: str) -> list[Path]:
    """List the files of the model; InputError where weights are missing."""
    return description.files(_folder(path))


def load(
    *, path: Annotated[str, Field(min_length=1, description="folder with model_index.json")]
) -> BaseModel:
    """Describe the base model of a folder, which `diffusion.pipeline.components.load` loads.

    The folder may have a `held_out.json` that names what the model never saw: {"subjects": [...], "styles": [...]}.
    Raises InputError where the folder is no pipeline in diffusers layout or lacks weights.
    """
    return description.describe(_folder(path))


def _folder(path: str) -> Path:
    """Return the path, relative to the working folder; `~` is the home folder."""
    return Path(path).expanduser()
