"""Digests: the seeds of all random numbers, and the content keys of everything that is stored for reuse.

Random numbers depend on what they are for (a run's seed, an exemplar set, a prompt, a step), never on a batch index,
a worker or the order of work.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np


def digest(*parts: Any) -> str:
    """Return the SHA-256 of the JSON of some plain values, 64 hexadecimal digits.

    The order of the keys of mappings does not matter. Raises TypeError for values that JSON cannot represent.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def content_key(*parts: Any) -> str:
    """Return a digest that is short enough for a file name, 20 hexadecimal digits."""
    return digest(*parts)[:20]


def seed(*parts: Any) -> int:
    """Return a seed in [0, 2**63) for what the parts name."""
    return int(digest(*parts)[:16], 16) >> 1


def generator(*parts: Any) -> np.random.Generator:
    """Return a NumPy generator, seeded for what the parts name."""
    return np.random.default_rng(seed(*parts))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Return a digest of all files below a folder: of their relative names and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])
