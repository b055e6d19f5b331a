"""Records of finished jobs, and how a copied or touched folder of results is recognised."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from attrib_core.common import hashing
from attrib_core.runtime import job_records, snakemake_metadata
from tests.conftest import Named

RUN = Path("results/tiny")
SECOND = 10**9


def job(rule: str, inputs: str, outputs: dict[str, str], second: int | None = None) -> None:
    """Write the outputs of a job, at a given time if there is one, and record the job."""
    for name, text in outputs.items():
        RUN.mkdir(parents=True, exist_ok=True)
        (RUN / name).write_text(text)
        if second is not None:
            set_times(**{name: second})
    job_records.save(
        SimpleNamespace(
            rule=rule,
            wildcards=Named({"encoder": "pixel"} if rule == "rank" else {}),
            params=Named({"seed": 7, "settings": {"sizes": (1, 2), "path": Path("x")}}),
            input=Named([str(RUN / name) for name in inputs]),
            output=Named([str(RUN / name) for name in outputs]),
            log=Named([str(RUN / "logs" / rule / "all.log")]),
        )
    )


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three jobs, a second apart, each with the outputs of the one before as inputs."""
    monkeypatch.chdir(tmp_path)
    job("pool", "", {"a": "a", "b": "b"}, second=0)
    job("rank", "ab", {"c": "c"}, second=1)
    job("report", "c", {"d": "d"}, second=2)


def time(name: str) -> int:
    return (RUN / name).stat().st_mtime_ns // SECOND


def set_times(**seconds: int) -> None:
    for name, second in seconds.items():
        os.utime(RUN / name, ns=(second * SECOND, second * SECOND))


def test_a_record_holds_params_inputs_and_checksums(finished: None) -> None:
    record = job_records.read(job_records.record_path(RUN, "rank", {"encoder": "pixel"}))
    assert record is not None
    assert record.params == {"seed": 7, "settings": {"sizes": [1, 2], "path": "x"}}
    assert record.inputs == ["results/tiny/a", "results/tiny/b"]
    output = record.outputs["results/tiny/c"]
    assert (output.size, output.modified, output.checksum) == (1, SECOND, hashing.file_digest(RUN / "c"))
    assert [one.rule for one in job_records.read_all(RUN)] == ["pool", "rank", "report"]


def test_a_job_outside_of_a_run_is_not_recorded(tmp_path: Path) -> None:
    alone = SimpleNamespace(rule="rank", log=[str(tmp_path / "rank.log")])
    assert job_records.save(alone) is None and not list(tmp_path.iterdir())


def test_files_in_order_are_left_alone(finished: None) -> None:
    set_times(a=50, b=50, c=51, d=52)
    assert snakemake_metadata.restore_times(RUN) == []
    assert time("d") == 52


def test_copied_files_get_their_times_back(finished: None) -> None:
    set_times(a=59, b=58, c=57, d=56)
    snakemake_metadata.restore_times(RUN)
    assert [time(name) for name in "abcd"] == [0, 0, 1, 2]
    assert snakemake_metadata.restore_times(RUN) == []


@pytest.mark.parametrize("name", ["a", "c"])
def test_a_changed_file_keeps_its_time(finished: None, name: str) -> None:
    """Of the same size or not: what depends on it must run again."""
    for text in ("x", "longer"):
        (RUN / name).write_text(text)
        set_times(**{name: 60})
        snakemake_metadata.restore_times(RUN)
        assert time(name) == 60 > time("d")


def test_an_input_that_was_written_again_is_no_copy(finished: None) -> None:
    """The job before ran again, and the next was killed before it started."""
    job("pool", "", {"a": "new", "b": "b"})
    snakemake_metadata.restore_times(RUN)
    assert time("a") > time("c")


def test_a_broken_record_counts_as_none(finished: None) -> None:
    path = job_records.record_path(RUN, "rank", {"encoder": "pixel"})
    for text in ("", "{", "[]", '{"rule": "rank"}', '{"outputs": {"c": {}}}'):
        path.write_text(text)
        assert job_records.read(path) is None
    set_times(a=60)
    assert snakemake_metadata.restore_times(RUN) == []  # no record says that c depends on it
    assert job_records.read(RUN / "none.json") is None


def test_what_a_fingerprint_covers_is_stored_once(finished: None) -> None:
    covered = {"code": {"a": "1"}, "files": {}, "packages": {"numpy": "2"}}
    for _ in range(2):
        job_records.save_coverage(RUN, "abc", covered)
    assert job_records.read_coverage(RUN, "abc") == covered
    assert job_records.read_coverage(RUN, "def") is None
    next(RUN.rglob("abc.json")).write_text('{"code": ')
    assert job_records.read_coverage(RUN, "abc") is None
    assert len(list(job_records.read_all(RUN))) == 3


@pytest.mark.parametrize(
    ("labels", "moved"),
    [
        (
            ["attrib_core:", "attrib_core.storage.tables.read", "attrib_core.common/a.csv", "rank.py:np"],
            False,
        ),
        (["attrib_core.storage.tables.read", "attrib_core.tables.read"], True),
        (["attrib_core.heads:json"], True),
        ([], False),
    ],
)
def test_code_of_an_earlier_layout_of_the_package_is_recognised(labels: list[str], moved: bool) -> None:
    assert job_records.covers_moved_code({"code": dict.fromkeys(labels, "1")}) == moved


def test_metadata_of_snakemake_moves_into_the_results(finished: None) -> None:
    deep = snakemake_metadata.METADATA / "@folder"
    deep.mkdir(parents=True)
    (snakemake_metadata.METADATA / "one").write_text("old")
    (deep / "two").write_text("2")
    for _ in range(2):
        snakemake_metadata.keep_in_results()
    assert snakemake_metadata.METADATA.is_symlink()
    assert (snakemake_metadata.IN_RESULTS / "one").read_text() == "old" and (
        snakemake_metadata.IN_RESULTS / "@folder" / "two"
    ).exists()
    (snakemake_metadata.METADATA / "three").write_text("new")
    assert (snakemake_metadata.IN_RESULTS / "three").read_text() == "new"


def test_a_checkout_finds_the_metadata_that_was_copied_with_the_results(finished: None) -> None:
    snakemake_metadata.IN_RESULTS.mkdir(parents=True)
    (snakemake_metadata.IN_RESULTS / "one").write_text("1")
    snakemake_metadata.keep_in_results()
    assert (snakemake_metadata.METADATA / "one").read_text() == "1"


def test_a_link_to_removed_metadata_is_removed(finished: None) -> None:
    snakemake_metadata.remove_broken_link()
    snakemake_metadata.keep_in_results()
    (snakemake_metadata.METADATA / "one").write_text("1")
    snakemake_metadata.remove_broken_link()
    assert (snakemake_metadata.METADATA / "one").read_text() == "1"
    shutil.rmtree(snakemake_metadata.IN_RESULTS)
    snakemake_metadata.remove_broken_link()
    snakemake_metadata.METADATA.mkdir()  # as Snakemake does
    snakemake_metadata.keep_in_results()
    assert snakemake_metadata.METADATA.is_symlink() and snakemake_metadata.METADATA.is_dir()


def test_jobs_without_metadata_of_snakemake_are_counted(finished: None) -> None:
    def write(folder: Path, name: str) -> None:
        parts = snakemake_metadata.file_parts(str(RUN / name))
        folder.joinpath(*parts).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(*parts).touch()

    assert snakemake_metadata.count_without_metadata(RUN) == (3, 3)
    write(snakemake_metadata.METADATA, "a")
    assert snakemake_metadata.count_without_metadata(RUN) == (3, 3)  # its job has another output
    write(snakemake_metadata.METADATA, "b")
    write(snakemake_metadata.INCOMPLETE, "c")  # Snakemake was killed during the job, which will run again
    assert snakemake_metadata.count_without_metadata(RUN) == (1, 3)
    (RUN / "d").unlink()
    assert snakemake_metadata.count_without_metadata(RUN) == (0, 2)


@pytest.mark.parametrize("name", ["results/a", f"results/{'long' * 100}/a"])
def test_metadata_is_searched_where_snakemake_writes_it(tmp_path: Path, name: str) -> None:
    from snakemake.persistence.file import FilePersistence

    theirs = FilePersistence._record_path(SimpleNamespace(_fetch_max_len=lambda folder: 255), "x", name)
    assert Path("x", *snakemake_metadata.file_parts(name)) == Path(theirs)
