"""Features that tuning improves, and `abc tune` on their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attrib_core.cli.main import main
from tests.abc_benchmark.abc_fixtures import AbcCase
from tests.features.mapper_fixtures import DIM, random_sets

HEADS = [(head, shared) for head in ("linear", "mlp", "channel") for shared in (False, True)]
"""Every form of head, and whether both sides share it."""
QUICK = ["--epochs", "12", "--learning-rate", "0.02", "--rank", "12", "--batch-sets", "6", "--hidden", "16"]
NOISE_DIMS = 4
"""Dimensions with noise that hides what distinguishes the models."""


def tunable_case(count: int, seed: int, *, noise: float = 4.0) -> AbcCase:
    """Return models whose synthesized images resemble their exemplars once tuning has suppressed the noise."""
    sets, random = random_sets(count, seed=seed, bend=0.0), np.random.default_rng(seed + 1000)

    def add_noise(rows: np.ndarray) -> np.ndarray:
        return (rows + noise * random.normal(size=rows.shape) * (np.arange(DIM) < NOISE_DIMS)).astype(
            np.float32
        )

    kinds = {
        kind: np.flatnonzero(np.arange(len(sets.synth)) % 2 == n) for n, kind in enumerate(("gpt", "media"))
    }
    return AbcCase(
        add_noise(np.random.default_rng(7).normal(size=(200, DIM))),
        add_noise(sets.real),
        np.bincount(sets.real_set).tolist(),
        {kind: add_noise(sets.synth[rows]) for kind, rows in kinds.items()},
        {kind: sets.synth_set[rows].tolist() for kind, rows in kinds.items()},
    )


def write_splits(folder: Path, *, noise: float = 4.0) -> dict[str, Path]:
    """Write the pool and the features of three splits; return their paths."""
    found: dict[str, Path] = {}
    for name, (count, seed) in {"train": (14, 1), "validation": (8, 2), "test": (10, 3)}.items():
        paths = tunable_case(count, seed, noise=noise).write(folder, name=name)
        found |= {name: paths["test"], f"{name}.json": paths["cases"], "pool": paths["pool"]}
    return found


def run_tune(paths: dict[str, Path], out: Path, *options: str) -> int:
    files = ["--pool", str(paths["pool"]), "--out", str(out)]
    splits = [f"--{split}={paths[split]}" for split in ("train", "validation")]
    return main(["abc", "tune", *files, *splits, *QUICK, *options])
