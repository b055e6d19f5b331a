"""A base model of the Hugging Face hub, by its name, from the cache of this machine.

`hf download NAME --revision COMMIT` puts it there; a run downloads nothing. The commit is the model's fingerprint.
Without a `revision`, the commit that the cache calls `main` is taken and logged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from attrib_core.common import hub_cache
from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import description
from attrib_core.diffusion.pipeline.description import BaseModel

INDEX = "model_index.json"


def files(*, name: str, revision: str | None = None) -> list[Path]:
    """List the files of the model; InputError where it is not, or not completely, in the cache."""
    found = hub_cache.snapshot(name, revision, INDEX)
    try:
        return description.files(found.path)
    except InputError as error:
        raise InputError(f"{error}; {hub_cache.download_hint(name, revision)}") from None


def load(
    *,
    name: Annotated[str, Field(min_length=1, description="name on the hub, like owner/model")],
    revision: Annotated[
        str | None, Field(min_length=1, description="commit, branch or tag; null: what the cache calls main")
    ] = None,
) -> BaseModel:
    """Describe the base model of a snapshot in the cache, which `diffusion.pipeline.components.load` loads.

    Raises InputError where it is not, or not completely, in the cache, and as the family `folder` does.
    """
    files(name=name, revision=revision)
    found = hub_cache.snapshot(name, revision, INDEX)
    hub_cache.log_commit("base_model", name, revision, found)
    return description.describe(found.path, fingerprint=found.commit)
