"""Find models of the Hugging Face hub by name in the cache of this machine; nothing is downloaded here.

A run whose jobs download models depends on the network and on what a name refers to today. So a model is downloaded
once, beforehand, and a run uses the commit in the cache.
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
    """A model of the hub at one commit: a folder of the cache, and the commit, 40 hexadecimal digits."""

    path: Path
    commit: str


def snapshot(
    name: str, revision: str | None, file: str, *, key: str = "name", instead: str = FOLDER_FAMILY
) -> Snapshot:
    """Return the cached snapshot of a model that has `file`, a path inside it such as "config.json".

    `revision` is a commit, branch or tag, by default the cache's `main`. The cache is that of huggingface_hub:
    HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. Raises InputError for an invalid name, and for a
    snapshot or file that is missing, with the command that downloads it. The message begins with `key` of the config
    and ends with `instead`: how to open a model in a folder.
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
        model = f"revision {revision!r} of {name!r}" if revision else f"{name!r}"
        raise InputError(
            f"{key}: {model} is not in {cache}, or lacks {file}; {download_hint(name, revision, instead)}"
        )
    path = Path(found)
    for _ in Path(file).parts:
        path = path.parent
    return Snapshot(path, path.name)


def download_hint(name: str, revision: str | None, instead: str = FOLDER_FAMILY) -> str:
    """Return the end of an error message about a missing model: the command that downloads it."""
    option = f" --revision {revision}" if revision else ""
    return (
        f"fetch it on a machine with a network by `hf download {name}{option}` and copy that cache here, or fetch"
        f" into a folder by `hf download {name}{option} --local-dir FOLDER` and {instead}"
    )


def log_commit(where: str, name: str, revision: str | None, found: Snapshot) -> None:
    """Log which commit a name refers to now, without a revision or with a branch or tag, which may move."""
    if revision != found.commit:
        LOGGER.warning(
            "%s: %s of %s is commit %s in the cache; set it as `revision` to pin it",
            where, revision or MAIN, name, found.commit,
        )  # fmt: skip
