"""Seeds and content keys: every random number and every cached file hangs on these.

Randomness is a function of what is asked (a run's seed, an exemplar set, a
prompt, a step), never of a batch index, a worker or the order of work.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np


def digest(*parts: Any) -> str:
    """SHA-256 over the JSON of some plain values, 64 hexadecimal digits.

    Mappings count without regard to the order of their keys. Raises TypeError
    for values that JSON cannot hold.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def content_key(*parts: Any) -> str:
    """A digest short enough for a file name, 20 hexadecimal digits."""
    return digest(*parts)[:20]


def seed(*parts: Any) -> int:
    """A seed in [0, 2**63) for the thing that the parts name."""
    return int(digest(*parts)[:16], 16) >> 1


def generator(*parts: Any) -> np.random.Generator:
    """A NumPy generator for the thing that the parts name."""
    return np.random.default_rng(seed(*parts))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Digest of all files below a folder: their relative names and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])
