"""Checkpoints of a training that may be killed, written atomically; and its learning rate schedule."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch

from attrib_core.storage import torch_files


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state under a temporary name, flush it, and rename the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """Load the last state, or None where there is none yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch_files.read(path)
    return state


def learning_rate_at(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the learning rate at a step: linear warm-up, then cosine decay to a fiftieth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
