"""Student's t distribution against SciPy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from attrib_core.common import student


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 13, 30, 101, 999, 1000])
def test_tails_and_quantiles_of_whole_degrees_of_freedom(df: int) -> None:
    for t in (-30.0, -2.0, 0.0, 0.3, 1.0, 2.5, 12.0):
        assert student.tail(t, df) == pytest.approx(
            max(stats.t.sf(t, df), student.LEAST_TAIL), rel=1e-6, abs=4e-15
        )
    for probability in (0.5, 0.9, 0.95, 0.975, 0.9999):
        assert student.quantile(probability, df) == pytest.approx(
            stats.t.ppf(probability, df), rel=1e-9, abs=1e-9
        )


def test_quantiles_between_are_a_little_too_large_and_more_degrees_are_bounded() -> None:
    for df in (2.01, 2.5, 3.3, 6.9, 17.5, 400.2):
        for probability in (0.95, 0.975):
            ratio = student.quantile(probability, df) / stats.t.ppf(probability, df)
            assert 1 <= ratio < 1.02
        assert student.tail(2.0, df) == pytest.approx(stats.t.sf(2.0, df), rel=0.02)
    assert student.quantile(0.975, 1e9) == student.quantile(0.975, 1000)
    assert student.quantile(0.975, 0.2) == student.quantile(0.975, 1)
    assert math.isnan(student.tail(math.nan, 3))
