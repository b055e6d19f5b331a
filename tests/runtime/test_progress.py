"""Progress lines and durations."""

from __future__ import annotations

import logging

import pytest

from attrib_core.runtime import progress
from attrib_core.runtime.durations import duration


def test_progress_yields_all_items_and_logs_their_number(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "attrib_core")
    monkeypatch.setattr(progress.time, "monotonic", lambda: 5.0)
    assert list(progress.progress(iter("abc"), total=3, what="letters")) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == ["3 letters in 0.0 s"]


def test_progress_logs_count_rate_and_remaining_time_every_few_seconds(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "attrib_core")
    clock = iter([0.0] + [2.0 * step for step in range(1, 100)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(progress.progress(range(7), total=7, what="sets"))
    assert [record.getMessage() for record in caplog.records] == [
        "3 of 7 sets, 2 s each, 8.0 s left",
        "6 of 7 sets, 2 s each, 2.0 s left",
        "7 sets in 16 s",
    ]


def test_progress_without_a_total_logs_no_remaining_time(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "attrib_core")
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert len(list(progress.progress(range(2), total=None, what="sets"))) == 2
    assert "left" not in caplog.text and " of " not in caplog.text
    assert caplog.text.count("sets,") == 2


def test_progress_is_lazy():
    items = progress.progress(iter(range(10)), total=10, what="sets")
    assert next(items) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_the_space_between_number_and_unit_can_be_chosen():
    assert duration(185, space="_") == "3_min 05_s"
