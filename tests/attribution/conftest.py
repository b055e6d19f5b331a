"""Fixtures of several test files of calibration."""

from __future__ import annotations

import pytest

from tests.attribution.calibration_fixtures import Case, case_of
from tests.attribution.ranking_fixtures import world


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    generated = world(
        0, rows=3000, dim=48, set_sizes=[1, 1, 4, 6, 1, 2, 1, 1], queries_each=5, signal=0.3, duplicates=20
    )
    generated.excluded = generated.pool_ids[::11]
    return case_of(tmp_path_factory.mktemp("case"), generated)


@pytest.fixture(scope="session")
def second_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    generated = world(
        3, rows=1500, dim=32, set_sizes=[1, 1, 3, 4, 1, 1, 1, 1, 2, 3], queries_each=4, signal=0.3
    )
    return case_of(tmp_path_factory.mktemp("second_case"), generated)
