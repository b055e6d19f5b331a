"""The set-up of a job: threads, log, one-line errors, and a GPU if the rule asks for one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from attrib_core.common.errors import InputError
from attrib_core.runtime import job

ROOT = Path(__file__).parents[2]
LOGGER = logging.getLogger("attrib_core.something")


def run_in_process(
    tmp_path: Path, body: str, threads: int = 1
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the body of a script as a job in another process; return the process and its log."""
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


def test_a_job_logs_to_its_file_and_briefly_to_the_terminal(tmp_path):
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


def test_any_other_error_leaves_its_traceback_in_the_log_and_one_line_on_the_terminal(tmp_path):
    done, log = run_in_process(tmp_path, "value = {}['missing']")
    assert done.returncode == 1
    assert done.stderr == (
        "[rank pixel linear] failed: KeyError: 'missing'; the traceback is in deep/rank.log\n"
    )
    assert "Traceback" in log
    assert "value = {}" in log or "<string>" in log


@pytest.mark.parametrize(("name", "shown"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT (Ctrl-C)")])
def test_a_signal_ends_a_job_like_an_error_without_unfinished_files(tmp_path, name, shown):
    done, log = run_in_process(
        tmp_path,
        f"""
        import os, signal
        from pathlib import Path
        from attrib_core.storage import atomic
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # if a shell runs the tests in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with atomic.writing(Path("out")) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.{name})
            raise RuntimeError("not reached")
        """,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"[rank pixel linear] error: ended by {shown}; run the same command again, finished work is kept\n"
    )
    assert f"ended by {shown}" in log.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_full_disk_anywhere_in_a_job_is_one_line(tmp_path):
    done, _ = run_in_process(
        tmp_path, "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/scratch/x')"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("[rank pixel linear] error: /scratch/x: no room left (disk); make room")
    assert len(done.stderr.splitlines()) == 1


def test_a_log_that_cannot_grow_does_not_fail_the_job(tmp_path):
    """By the system's limit on the size of a file."""
    done, log = run_in_process(
        tmp_path,
        """
        import logging, resource
        sys.dont_write_bytecode = True  # a truncated .pyc file would break other imports
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


def test_threads_are_set_before_numpy_is_imported(tmp_path):
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
def test_torch_uses_the_threads_whether_imported_before_or_inside(tmp_path):
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


def test_environment_and_logging_are_restored(fake_snakemake, monkeypatch):
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
def test_a_gpu_is_claimed_if_the_rule_asks_for_one(fake_snakemake, monkeypatch, resources, claims):
    claimed = []
    monkeypatch.setattr(job.devices, "claim", lambda: claimed.append(1))
    with job.job(fake_snakemake(resources=resources)):
        assert len(claimed) == claims


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
        raise InputError("fail: requested")
    with open(snakemake.output[0], "w") as stream:
        stream.write("done")
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
    assert "[make a] error: fail: requested" in failed.stderr
    assert "raise InputError" not in failed.stderr
    assert "fail: requested" in (tmp_path / "logs" / "a.log").read_text()
    worked = run()
    assert worked.returncode == 0, worked.stderr
    assert (tmp_path / "a.txt").read_text() == "done"
