"""Fixtures of the features wing: weights of tiny networks, encoders with small options, FAISS in one thread."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.features.encoders_fixtures import load_small, tiny_weights


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the weights of tiny networks, each saved once a session."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="session")
def weights(weights_folder: Path) -> Path:
    """The weights of a tiny timm network, as a file."""
    return tiny_weights(weights_folder)


@pytest.fixture(scope="session")
def load_encoder(weights: Path) -> Callable[..., Any]:
    """Loads a family of encoders with options that make it small, a family without such options by its defaults."""
    return functools.partial(load_small, weights)


@pytest.fixture
def one_faiss_thread() -> None:
    """FAISS computes in one thread: indices are then the same bit for bit."""
    import faiss

    faiss.omp_set_num_threads(1)
