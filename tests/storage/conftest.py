"""Folders of a run and of its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from attrib_core.storage.store import layout


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "results" / "run"


@pytest.fixture
def folder(run: Path) -> Path:
    """The folder of the store for synthesized images."""
    return layout.folder(run, "synthesized")
