"""The paths of the store, which all runs of a folder share.

results/store/<kind>/<key>...     deltas, prior images, synthesized images, embeddings
results/store/<kind>.claims       see `claims`
results/store/<kind>.moves, lock  see `locks`
"""

from __future__ import annotations

from pathlib import Path

STORE = "store"
# One statement each: a fingerprint then covers only the names that a stage uses.
DELTAS = "deltas"
PRIOR = "prior"
SYNTHESIZED = "synthesized"
EMBEDDINGS = "embeddings"
KINDS = (DELTAS, PRIOR, SYNTHESIZED, EMBEDDINGS)
"""Kinds of results, each in a folder of its own."""


def root(run: Path) -> Path:
    """Return the store of a run: next to its folder, which may be a link, so that `relative` holds for it."""
    parent = run.resolve().parent if run.is_symlink() else run.parent
    return parent / STORE


def folder(run: Path, kind: str) -> Path:
    """Return the folder of the store that holds results of a kind."""
    return root(run) / kind


def relative(kind: str) -> Path:
    """Return the same folder, relative to the folder of the run."""
    return Path("..") / STORE / kind
