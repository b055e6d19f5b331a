"""A base model of the Hugging Face hub by its name, as far as it is in the cache of this machine.

`hf download NAME --revision COMMIT` puts it there; nothing is downloaded in a run. The
commit is the model's fingerprint: a name without a `revision` is what the cache
calls `main`, and the log says which commit that is.
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
    """The files that make the model; InputError where it is not in the cache, or not whole."""
    found = hub_cache.snapshot(name, revision, INDEX)
    try:
        return description.files(found.path)
    except InputError as error:
        raise InputError(f"{error}; {hub_cache.fetching(name, revision)}") from None


def load(
    *,
    name: Annotated[str, Field(min_length=1, description="name on the hub, like owner/model")],
    revision: Annotated[
        str | None, Field(min_length=1, description="commit, branch or tag; null: what the cache calls main")
    ] = None,
) -> BaseModel:
    """The base model of a snapshot in the cache, described; `diffusion.components.load` opens it.

    Raises InputError where it is not in the cache or not whole, and as the family `folder` does.
    """
    files(name=name, revision=revision)
    found = hub_cache.snapshot(name, revision, INDEX)
    hub_cache.say_commit("base_model", name, revision, found)
    return description.describe(found.path, fingerprint=found.commit)
