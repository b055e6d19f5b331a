"""The errors of failed jobs are found in their logs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attrib_core.common.errors import InputError
from attrib_core.runtime import failure_summary
from attrib_core.runtime.job import job


def log_of(folder: Path, name: str, error: BaseException | None, fake_snakemake) -> None:
    snakemake = fake_snakemake(rule="rank", wildcards={"encoder": name})
    snakemake.log = [str(folder / f"rank/{name}.log")]
    try:
        with job(snakemake):
            if error is not None:
                raise error
    except SystemExit:
        pass


def test_the_last_line_of_each_failed_job_and_of_no_other(tmp_path, fake_snakemake, capsys):
    log_of(tmp_path, "old", InputError("long ago"), fake_snakemake)
    os.utime(tmp_path / "rank/old.log", (1, 1))
    log_of(tmp_path, "fine", None, fake_snakemake)
    log_of(tmp_path, "bad", InputError("ranking.top_k: 0; choose 1 or more"), fake_snakemake)
    log_of(tmp_path, "broken", KeyError("x"), fake_snakemake)
    capsys.readouterr()
    failure_summary.print_summary(tmp_path, since=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "[rank bad] error: ranking.top_k: 0; choose 1 or more",
        f"[rank broken] failed: KeyError: 'x'; the traceback is in {tmp_path}/rank/broken.log",
    ]


def test_a_log_without_a_last_line_is_a_killed_job_or_a_full_disk(tmp_path, monkeypatch):
    (tmp_path / "rank").mkdir()
    (tmp_path / ".snakemake").mkdir()
    log = tmp_path / "rank/pixel.log"
    log.write_text("2026-01-01 00:00:00,000 DEBUG attrib_core: job rank pixel\nat work\n")
    (line,) = failure_summary.summarize(tmp_path, 0)
    assert line.startswith("[rank pixel] failed: it ended without a message") and str(log) in line
    assert "--set-resources rank:mem_mb=N" in line
    for full in (tmp_path / "rank", tmp_path / ".snakemake"):
        monkeypatch.setattr(
            failure_summary.disk_space, "nearly_full", lambda folder, full=full: folder == full
        )
        (line,) = failure_summary.summarize(tmp_path, 0, [tmp_path / ".snakemake"])
        assert line.startswith(f"[rank pixel] error: {full}: no room left (disk); make room")


def test_a_full_disk_of_snakemake_itself_is_named(tmp_path, monkeypatch, fake_snakemake, capsys):
    log_of(tmp_path, "fine", None, fake_snakemake)
    others = [tmp_path / "gone", tmp_path / ".metadata"]
    others[1].mkdir()
    assert failure_summary.summarize(tmp_path, 0, others) == []
    monkeypatch.setattr(failure_summary.disk_space, "nearly_full", lambda folder: folder == others[1])
    (line,) = failure_summary.summarize(tmp_path, 0, others)
    assert line.startswith(f"error: {others[1]}: no room left (disk); make room")
    log_of(tmp_path, "bad", InputError("ranking.top_k: 0; choose 1 or more"), fake_snakemake)
    assert failure_summary.summarize(tmp_path, 0, others) == [
        "[rank bad] error: ranking.top_k: 0; choose 1 or more"
    ]


def test_a_job_with_an_empty_log_is_named_by_the_path_of_the_log(tmp_path):
    (tmp_path / "pool_part").mkdir()
    (tmp_path / "pool_part/0000.log").touch()
    (line,) = failure_summary.summarize(tmp_path, 0)
    assert line.startswith("[pool_part 0000] failed: ") and "--set-resources pool_part:mem_mb=N" in line


@pytest.mark.parametrize(("number", "shown"), [(10, 10), (11, 11), (500, 11)])
def test_at_most_ten_are_listed(tmp_path, number, shown):
    for index in range(number):
        (tmp_path / f"{index:03d}.log").write_text("x ERROR attrib_core: error: bad\n")
    lines = failure_summary.summarize(tmp_path, 0)
    assert len(lines) == shown
    assert number <= 10 or lines[-1].startswith(f"and {number - 10} more; see")
