"""The protocol of stages that keep results in the store: only what is missing is made, and all of it is read back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attrib_core.storage.store import make_missing, pieces, references
from attrib_core.storage.store.make_missing import StoredResults
from tests.storage.claims_fixtures import Holder
from tests.storage.pieces_fixtures import SCHEMA, rows

KEYS = [f"{number * 0x1234567:020x}" for number in range(1, 4)]


@pytest.fixture
def wanted(run: Path) -> StoredResults:
    return StoredResults(KEYS, run, "synthesize_part/0000", "synthesized")


def make(wanted: StoredResults, made: list[str], *, fail_at: str = "") -> dict[str, list[dict[str, Any]]]:
    """Make the missing pieces, and note in `made` which; return the rows of all."""

    def make_rows(keys: list[str]) -> Iterator[list[dict[str, Any]]]:
        for key in keys:
            if key == fail_at:
                raise KeyboardInterrupt
            made.append(key)
            yield rows([key])

    pieces_made = make_missing.make_pieces(
        wanted, make_rows, "rejects", counted="images of %d of %d models", noun="sets of images"
    )
    return {key: table.to_pylist() for key, table in pieces_made}


def test_only_missing_pieces_are_made_and_all_are_read_in_order(
    wanted: StoredResults, caplog: pytest.LogCaptureFixture
) -> None:
    pieces.write(wanted.folder, KEYS[1], rows([KEYS[1]]), SCHEMA)
    made: list[str] = []
    with caplog.at_level(logging.INFO):
        found = make(wanted, made)
    assert made == [KEYS[0], KEYS[2]]
    assert list(found) == KEYS and all(found[key] == rows([key]) for key in KEYS)
    assert caplog.messages == ["images of 1 of 3 models are there already"]
    assert make(wanted, made) == found and len(made) == 2


def test_the_job_refers_to_all_keys_before_it_makes_any(wanted: StoredResults) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(wanted, [], fail_at=KEYS[0])
    assert references.by_job(wanted.run) == {wanted.job: (wanted.kind, sorted(KEYS))}


def test_what_was_made_before_an_interruption_is_kept(wanted: StoredResults) -> None:
    made: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        make(wanted, made, fail_at=KEYS[2])
    assert wanted.missing() == [KEYS[2]]
    make(wanted, made)
    assert made == KEYS, "nothing is made twice"


def test_a_key_that_is_wanted_twice_is_made_once(wanted: StoredResults) -> None:
    twice = StoredResults([KEYS[0], KEYS[0]], wanted.run, wanted.job, wanted.kind)
    made: list[str] = []
    make(twice, made)
    assert made == [KEYS[0]]


def test_too_few_or_too_many_rows_are_an_error(wanted: StoredResults) -> None:
    for made in ([], [rows([KEYS[0]])] * 4):
        with pytest.raises(ValueError, match="zip"):
            list(make_missing.make_pieces(wanted, lambda _, made=made: made, "rejects", counted="", noun="x"))


def test_all_claimed_waits_for_other_jobs_and_keeps_them_out(
    wanted: StoredResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Holder(wanted.folder, KEYS[1])

    def other_job_ends(_: float) -> None:
        pieces.write(wanted.folder, KEYS[1], rows([KEYS[1]]), SCHEMA)
        holder.end()

    monkeypatch.setattr(make_missing.claims.time, "sleep", other_job_ends)
    with make_missing.all_claimed(wanted, "embeddings"):
        assert wanted.missing() == [KEYS[0], KEYS[2]]
        with pytest.raises(AssertionError):
            Holder(wanted.folder, KEYS[0])
    Holder(wanted.folder, KEYS[0]).end()
