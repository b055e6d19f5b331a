"""Fixtures of the tests of data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.exemplars_fixtures import pool_rows, write_pool


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Parts of a pool, 30 rows each."""
    return write_pool(tmp_path, pool_rows(), 30)
