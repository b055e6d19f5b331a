"""Student's t distribution against SciPy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from attrib_core.common import student

DEGREES = (1, 1.01, 1.5, 1.99, 2, 2.5, 3, 3.3, 4, 5, 6.9, 8, 13, 30, 101.2, 400.2, 999, 999.5, 1000)


@pytest.mark.parametrize("df", DEGREES)
def test_tails_and_quantiles(df: float) -> None:
    for t in (0.0, 1e-3, 0.1, 0.3, 0.7, 1.0, 1.2, 1.3, 1.5, 2.0, 2.5, 4.0, 7.0, 12.0, 30.0, 1e4):
        for signed in (-t, t):
            expected = max(stats.t.sf(signed, df), student.LEAST_TAIL)
            assert student.tail(signed, df) == pytest.approx(expected, rel=1e-9, abs=0)
    for probability in (0.5, 0.5001, 0.9, 0.95, 0.975, 0.9999, 1 - 1e-9):
        expected = stats.t.ppf(probability, df)
        assert student.quantile(probability, df) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("df", DEGREES)
def test_the_tail_beyond_a_quantile_is_what_is_left(df: float) -> None:
    for probability in (0.6, 0.9, 0.95, 0.975, 0.9999):
        left = student.tail(student.quantile(probability, df), df)
        assert left == pytest.approx(1 - probability, rel=1e-9, abs=0)


def test_degrees_of_freedom_are_bounded_and_nothing_is_zero() -> None:
    assert student.quantile(0.975, 1e9) == student.quantile(0.975, 1000)
    assert student.quantile(0.975, 0.2) == student.quantile(0.975, 1)
    assert student.tail(math.inf, 3) == student.tail(1e9, 3) == student.LEAST_TAIL
    assert student.tail(-math.inf, 3) == 1.0
    assert math.isnan(student.tail(math.nan, 3))
