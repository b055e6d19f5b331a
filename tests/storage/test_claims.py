"""Claims: two jobs that lack the same result make it once, however the first of them ends."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attrib_core.common import hashing
from attrib_core.storage.store import claims
from tests.storage.claims_fixtures import ROOT, Holder

ONE, TWO, THREE, FOUR = (hashing.content_key(number) for number in range(4))
MAKE = """
import sys
from pathlib import Path
from attrib_core.storage.store import claims
folder, groups = Path(sys.argv[1]), [group.split(",") for group in sys.argv[2:]]
for mine in claims.turns(folder, groups, lambda key: (folder / key).exists(), what="results"):
    for key in mine:
        with (folder / "made").open("a") as made:
            made.write(key + "\\n")
        (folder / key).touch()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "deltas"
    path.mkdir(parents=True)
    return path


def test_a_claim_is_for_one_key_and_ends_with_its_process(folder: Path) -> None:
    other = Holder(folder, ONE, TWO)
    with claims.opened(folder) as mine:
        assert [mine.take(key) for key in (ONE, TWO, THREE)] == [False, False, True]
        other.next()
        assert other.printed() == "released"
        assert [mine.take(key) for key in (ONE, TWO)] == [True, False]
        other.end()
        assert mine.take(TWO)
    again = Holder(folder, ONE, TWO, THREE)  # all ended with the block
    again.end()
    assert [path.name for path in folder.parent.iterdir() if path.is_file()] == ["deltas.claims"]
    assert not list(folder.iterdir())


def test_claimed_keys_come_last_and_are_made_only_if_still_missing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = {THREE}  # by another job, since the groups were formed
    other = Holder(folder, ONE, TWO)
    turns = claims.turns(folder, [[ONE, THREE], [FOUR, TWO]], made.__contains__, what="models")
    assert next(turns) == [FOUR]
    made.add(FOUR)
    made.add(ONE)  # the other job finished one result and was then killed
    other.end()
    assert list(turns) == [[TWO]]
    assert "another job makes 2 models, which this one then uses" in caplog.text


def test_jobs_that_wait_for_each_other_all_end(folder: Path) -> None:
    """Several at once, each with the same keys in another order: all end, and each result is made once."""
    wanted = [hashing.content_key(number) for number in range(12)]
    orders = [wanted, wanted[::-1], wanted[6:] + wanted[:6], wanted[::2] + wanted[1::2]]
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                MAKE,
                str(folder),
                *(",".join(order[at : at + 3]) for at in range(0, 12, 3)),
            ],
            cwd=ROOT,
        )
        for order in orders
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert sorted((folder / "made").read_text().split()) == sorted(wanted)


def test_all_of_waits_for_every_key_and_logs_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    other = Holder(folder, ONE, TWO)
    waited: list[str] = []

    def slept(_: float) -> None:
        waited.append("slept")
        other.end()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(claims.time, "sleep", slept)
        with claims.all_of(folder, [TWO, ONE, TWO], what="embeddings"):
            assert waited
    assert caplog.text.count("another job makes embeddings") == 1


@pytest.fixture(params=claims.NO_LOCKS, ids=errno.errorcode.__getitem__)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file system that takes no locks."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, "no locks here")

    monkeypatch.setattr(claims.fcntl, "lockf", refuse)
    yield


@pytest.mark.usefixtures("without_locks")
def test_without_locks_every_job_makes_everything(folder: Path) -> None:
    assert list(claims.turns(folder, [[ONE], [TWO]], lambda _: False, what="models")) == [[ONE], [TWO]]
    with claims.all_of(folder, [ONE, TWO], what="embeddings"):
        pass


def test_keys_have_different_offsets(folder: Path) -> None:
    many = {claims._offset(hashing.content_key(number)) for number in range(10_000)}
    assert len(many) == 10_000 and max(many) < 2**63


def test_an_error_in_the_block_is_kept_and_releases_the_claims(folder: Path) -> None:
    with pytest.raises(ValueError, match="a bad image"):
        for _ in claims.turns(folder, [[ONE, TWO]], lambda _: False, what="models"):
            raise ValueError("a bad image")
    Holder(folder, ONE, TWO).end()
    assert list(claims.turns(folder, [[ONE]], lambda _: False, what="models")) == [[ONE]]
