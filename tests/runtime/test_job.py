"""What surrounds a job: threads, log, one-line errors, progress, and a GPU where the rule asks for one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from attrib_core.common.errors import InputError
from attrib_core.runtime import job, progress
from attrib_core.runtime.durations import duration

ROOT = Path(__file__).parents[2]
LOGGER = logging.getLogger("attrib_core.something")


def run_in_process(
    tmp_path: Path, body: str, threads: int = 1
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a script's body as a job in a process of its own; the process and its log file."""
    program = f"""
import sys
from types import SimpleNamespace
snakemake = SimpleNamespace(rule="rank", wildcards=["pixel", "linear"], threads={threads}, log=["deep/rank.log"])
from attrib_core.runtime.job import job
from attrib_core.runtime.progress import progress
with job(snakemake):
{textwrap.indent(textwrap.dedent(body), "    ")}
print("after")
"""
    clean = {name: value for name, value in os.environ.items() if name not in job.THREAD_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done, (tmp_path / "deep" / "rank.log").read_text()


def test_a_job_that_works_logs_to_its_file_and_briefly_to_the_terminal(tmp_path):
    done, log = run_in_process(
        tmp_path,
        """
        import logging, warnings
        logging.getLogger("attrib_core.attribution.ranking.rank").info("ranked %d", 3)
        logging.getLogger("attrib_core.attribution.ranking.rank").debug("in detail")
        logging.getLogger("other").info("chatter")
        logging.getLogger("other").warning("from another package")
        warnings.warn("old style")
        """,
    )
    assert done.returncode == 0
    assert done.stdout == "after\n"
    assert done.stderr == "[rank pixel linear] ranked 3\n"
    for words in (
        "job rank pixel linear",
        "ranked 3",
        "in detail",
        "from another package",
        "old style",
        "done in",
    ):
        assert words in log
    assert "chatter" not in log


def test_an_input_error_is_one_line_without_traceback(tmp_path):
    done, log = run_in_process(
        tmp_path,
        """
        from attrib_core.common.errors import InputError
        raise InputError("pool.images: 0 is too few")
        """,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "[rank pixel linear] error: pool.images: 0 is too few\n"
    assert "pool.images: 0 is too few" in log
    assert "Traceback" not in log


def test_another_error_leaves_its_traceback_in_the_log_and_last_words_with_rule_and_log(tmp_path):
    done, log = run_in_process(tmp_path, "value = {}['missing']")
    assert done.returncode == 1
    assert done.stderr == (
        "[rank pixel linear] failed: KeyError: 'missing'; the traceback is in deep/rank.log\n"
    )
    assert "Traceback" in log
    assert "value = {}" in log or "<string>" in log


@pytest.mark.parametrize(("name", "told"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT (Ctrl-C)")])
def test_a_signal_is_an_end_like_an_error_with_nothing_half_written_left(tmp_path, name, told):
    done, log = run_in_process(
        tmp_path,
        f"""
        import os, signal
        from pathlib import Path
        from attrib_core.storage import atomic
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of tests that a shell runs in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with atomic.written(Path("out")) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.{name})
            raise RuntimeError("not reached")
        """,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"[rank pixel linear] error: ended by {told}; run the same command again, finished work is kept\n"
    )
    assert f"ended by {told}" in log.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_full_disk_anywhere_in_a_job_is_one_line(tmp_path):
    done, _ = run_in_process(
        tmp_path, "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/scratch/x')"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("[rank pixel linear] error: /scratch/x: no room left (disk); make room")
    assert len(done.stderr.splitlines()) == 1


def test_a_log_that_takes_no_more_lines_ends_no_job(tmp_path):
    """With the system's limit on the size of a file."""
    done, log = run_in_process(
        tmp_path,
        """
        import logging, resource
        sys.dont_write_bytecode = True  # the first import of a module would leave its beginning for all others
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        for number in range(100):
            logging.getLogger("attrib_core").debug("line %d", number)
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")
    assert len(log) <= 500


def test_an_error_message_of_many_lines_is_cut_on_the_terminal(tmp_path):
    done, log = run_in_process(tmp_path, "raise RuntimeError('first\\nsecond')")
    assert len(done.stderr.splitlines()) == 1
    assert "second" not in done.stderr
    assert "second" in log


def test_threads_are_the_rules_before_numpy_is_imported(tmp_path):
    done, _ = run_in_process(
        tmp_path,
        """
        assert "numpy" not in sys.modules and "torch" not in sys.modules
        import os
        import pyarrow
        print(os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"], os.environ["MKL_NUM_THREADS"])
        print(os.environ["OMP_WAIT_POLICY"], pyarrow.cpu_count())
        """,
        threads=3,
    )
    assert done.stdout.split() == ["3", "3", "3", "PASSIVE", "3", "after"]


@pytest.mark.slow
def test_torch_obeys_whether_imported_before_or_inside(tmp_path):
    done, _ = run_in_process(tmp_path, "import torch\nprint(torch.get_num_threads())", threads=1)
    assert done.stdout.split()[0] == "1"
    program = """
import torch
from types import SimpleNamespace
torch.set_num_threads(2)
from attrib_core.runtime.job import job
with job(SimpleNamespace(rule="r", threads=1, log=[])):
    print(torch.get_num_threads())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1\n"


def test_environment_and_logging_are_as_before_afterwards(fake_snakemake, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ), list(logging.getLogger().handlers), list(job.LOGGER.handlers)
    with job.job(fake_snakemake(threads=2)):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "2"
    assert (dict(os.environ), logging.getLogger().handlers, job.LOGGER.handlers) == before
    with pytest.raises(SystemExit), job.job(fake_snakemake()):
        raise InputError("x")
    assert (dict(os.environ), logging.getLogger().handlers, job.LOGGER.handlers) == before


@pytest.mark.parametrize(("resources", "claims"), [({"gpu": 1}, 1), ({"gpu": 0}, 0), ({}, 0)])
def test_a_gpu_is_claimed_where_the_rule_asks_for_one(fake_snakemake, monkeypatch, resources, claims):
    claimed = []
    monkeypatch.setattr(job.devices, "claim", lambda: claimed.append(1))
    with job.job(fake_snakemake(resources=resources)):
        assert len(claimed) == claims


def test_progress_yields_all_items_and_says_how_many(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "attrib_core")
    monkeypatch.setattr(progress.time, "monotonic", lambda: 5.0)
    assert list(progress.progress(iter("abc"), total=3, what="letters")) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == ["3 letters in 0.0 s"]


def test_progress_tells_count_rate_and_remaining_time_every_few_seconds(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "attrib_core")
    clock = iter([0.0] + [2.0 * step for step in range(1, 100)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(progress.progress(range(7), total=7, what="sets"))
    assert [record.getMessage() for record in caplog.records] == [
        "3 of 7 sets, 2 s each, 8.0 s left",
        "6 of 7 sets, 2 s each, 2.0 s left",
        "7 sets in 16 s",
    ]


def test_progress_without_a_total_promises_nothing(caplog, monkeypatch):
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


@pytest.mark.slow
def test_under_snakemake_itself(tmp_path):
    (tmp_path / "Snakefile").write_text(
        """
rule all:
    input: "a.txt"

rule make:
    output: "{name}.txt"
    log: "logs/{name}.log"
    threads: 1
    resources: gpu=1
    params: fail=config.get("fail", "")
    script: "make.py"
"""
    )
    (tmp_path / "make.py").write_text(
        """
from attrib_core.runtime.job import job
with job(snakemake):
    from attrib_core.common.errors import InputError
    if snakemake.params.fail:
        raise InputError("fail: asked for")
    with open(snakemake.output[0], "w") as stream:
        stream.write("made")
"""
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nocolor"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ATTRIB_DEVICE": "cpu"}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    failed = run("--config", "fail=yes")
    assert failed.returncode == 1
    assert "[make a] error: fail: asked for" in failed.stderr
    assert "raise InputError" not in failed.stderr
    assert "fail: asked for" in (tmp_path / "logs" / "a.log").read_text()
    worked = run()
    assert worked.returncode == 0, worked.stderr
    assert (tmp_path / "a.txt").read_text() == "made"
