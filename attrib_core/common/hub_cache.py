"""Models of the Hugging Face hub, by name, from the cache of this machine; nothing is downloaded here.

A run whose jobs fetch for themselves depends on the network and on what a name means
today. So a model is fetched once, beforehand, and a run takes the commit that is there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from attrib_core.common.errors import InputError

LOGGER = logging.getLogger(__name__)
MAIN = "main"
FOLDER_FAMILY = "open that by 'family: folder'"


@dataclass(frozen=True)
class Snapshot:
    """A model of the hub as it was at a commit: a folder of the cache, and the commit's 40 hexadecimal digits."""

    path: Path
    commit: str


def snapshot(
    name: str, revision: str | None, file: str, *, key: str = "name", instead: str = FOLDER_FAMILY
) -> Snapshot:
    """The cached snapshot of a model, which holds `file`, a path inside it such as "config.json".

    `revision` is a commit, branch or tag; without one the cache's `main` is taken. The cache
    is that of huggingface_hub: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub.
    Raises InputError for a name that the hub cannot have, and where the snapshot or the file
    is not there, with the command that fetches it. `key` of the config stands in front of the
    message; `instead` says what opens a folder that holds the model.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    cache = Path(constants.HF_HUB_CACHE)
    try:
        found = try_to_load_from_cache(name, file, cache_dir=cache, revision=revision or MAIN)
    except HFValidationError:
        raise InputError(
            f"{key}: {name!r} is no name of the hub, expected one like 'owner/model'; of a folder: {instead}"
        ) from None
    if not isinstance(found, str):
        place = f"revision {revision!r} of {name!r}" if revision else f"{name!r}"
        raise InputError(
            f"{key}: {place} is not in {cache}, or lacks {file}; {fetching(name, revision, instead)}"
        )
    path = Path(found)
    for _ in Path(file).parts:
        path = path.parent
    return Snapshot(path, path.name)


def fetching(name: str, revision: str | None, instead: str = FOLDER_FAMILY) -> str:
    """What to do about a model that is not there, the end of an error message."""
    said = f" --revision {revision}" if revision else ""
    return (
        f"fetch it on a machine with a network by `hf download {name}{said}` and copy that cache here, or fetch"
        f" into a folder by `hf download {name}{said} --local-dir FOLDER` and {instead}"
    )


def say_commit(where: str, name: str, revision: str | None, found: Snapshot) -> None:
    """Log which commit a name without a revision, or with one that may move, stands for now."""
    if revision != found.commit:
        LOGGER.warning(
            "%s: %s of %s is commit %s in the cache; name it as `revision` to keep to it",
            where, revision or MAIN, name, found.commit,
        )  # fmt: skip
