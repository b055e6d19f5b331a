"""One Snakemake per run, no job that outlives it, and file systems with unreliable locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from attrib_core.common.errors import InputError
from attrib_core.runtime import run_lock

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds to wait for an event before the test fails
HOLD = (
    "from attrib_core.runtime import run_lock; import sys; run_lock.hold('demo'); print('held', flush=True);"
)
STAY = "sys.stdin.read()"  # until it is killed or its parent has ended


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory; the locks of the test are released at its end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv(run_lock.OWNER, raising=False)
    monkeypatch.setattr(run_lock, "_held", [])
    yield tmp_path
    os.environ.pop(run_lock.OWNER, None)
    for descriptor in run_lock._held:
        os.close(descriptor)


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_for_state(pid: int, state: str) -> None:
    """Wait until all threads of a process are stopped (T), or it is a zombie (Z)."""
    deadline = time.monotonic() + PATIENCE
    while states(pid) != {state}:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def states(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found.add(path.read_text().rpartition(")")[2].split()[0])
    return found


def test_a_second_snakemake_is_refused_until_the_first_is_killed(folder):
    first = start(HOLD + STAY)
    assert line(first) == "held"
    words = rf"run 'demo': another Snakemake is at work on it \(process {first.pid} on .* since .*\); wait"
    with pytest.raises(InputError, match=words):
        run_lock.hold("demo")
    with pytest.raises(InputError, match=words):
        run_lock.check_free("demo")
    run_lock.hold("another")
    first.kill()
    first.wait()
    run_lock.check_free("demo")
    run_lock.hold("demo")


def test_check_free_takes_no_lock_and_creates_no_file(folder):
    run_lock.check_free("demo")
    assert not list(folder.iterdir())
    run_lock.hold("demo")
    os.close(run_lock._held.pop())
    run_lock.check_free("demo")
    run_lock.hold("demo")


class Clock:
    """A replacement of the module `time` that advances only in `sleep`, and then runs planned functions."""

    def __init__(self) -> None:
        self.now, self.planned = 100.0, [(float("inf"), lambda: None)]
        self.strftime = time.strftime

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.planned[0][0] <= self.now:
            self.planned.pop(0)[1]()


@pytest.mark.parametrize(("seconds", "refused"), [(0.9, False), (1.1, True)])
def test_a_check_at_the_same_moment_refuses_no_one(folder, monkeypatch, seconds, refused):
    lock = run_lock.hold("demo")
    os.close(run_lock._held.pop())
    clock = Clock()
    monkeypatch.setattr(run_lock, "time", clock)
    with lock.open() as checking:
        fcntl.flock(checking, fcntl.LOCK_SH)  # as check_free does for an instant
        clock.planned.insert(0, (clock.now + seconds, lambda: fcntl.flock(checking, fcntl.LOCK_UN)))
        if refused:
            with pytest.raises(InputError, match="another Snakemake is at work"):
                run_lock.hold("demo")
        else:
            run_lock.hold("demo")
            assert clock.now >= 100 + seconds


JOB = """
from attrib_core.runtime import run_lock
import subprocess, sys
run_lock.hold('demo')
job = '''import sys
from attrib_core.runtime import run_lock
run_lock.register_job()
print("joined", flush=True)
sys.stdin.read()
'''
child = subprocess.Popen([sys.executable, "-c", job], stdout=subprocess.PIPE, text=True)  # our standard input
print(child.pid, child.stdout.readline(), flush=True)
child.wait()
"""


def test_a_job_ends_with_its_snakemake_and_the_next_waits_for_it(folder):
    first = start(JOB)
    pid = int(line(first).split()[0])
    os.kill(pid, 19)  # SIGSTOP: it cannot notice
    wait_for_state(pid, "T")  # a signal takes a moment, in which the job may still check
    first.kill()
    first.wait()
    second = start("import logging; logging.basicConfig();" + HOLD)
    assert second.stderr is not None
    assert "waiting for jobs of a Snakemake that was killed" in second.stderr.readline()
    assert second.poll() is None
    os.kill(pid, 18)  # SIGCONT
    assert line(second) == "held"
    assert second.wait() == 0


def test_a_job_that_starts_after_its_snakemake_was_killed_does_nothing(folder, monkeypatch):
    first = start(HOLD + "import os; print(os.environ['ATTRIB_SNAKEMAKE'], flush=True);" + STAY)
    line(first)
    owner = line(first)
    first.kill()  # not waited for: a zombie counts as ended
    monkeypatch.setenv(run_lock.OWNER, owner)
    wait_for_state(first.pid, "Z")
    with pytest.raises(InputError, match="the Snakemake that started this job is gone"):
        run_lock.register_job()
    first.wait()


@pytest.mark.parametrize("changed", ["boot", "processes"])
def test_a_job_on_another_machine_or_in_a_container_is_not_watched(folder, monkeypatch, changed):
    run_lock.hold("demo")
    owner = json.loads(os.environ[run_lock.OWNER]) | {changed: "other", "pid": 1, "started": "never"}
    monkeypatch.setenv(run_lock.OWNER, json.dumps(owner))
    held = list(run_lock._held)
    run_lock.register_job()
    assert run_lock._held == held


def test_a_reused_process_id_is_another_process(folder):
    run_lock.hold("demo")
    owner = json.loads(os.environ[run_lock.OWNER])
    assert run_lock._alive(owner)
    assert not run_lock._alive(owner | {"started": str(int(owner["started"]) - 1)})


@pytest.mark.parametrize(
    ("mounts", "reliable"),
    [
        ("/dev/a / ext4 rw", True),
        ("/dev/a / ext4 rw\nhost:/x /shared nfs4 rw,local_lock=none", True),
        ("/dev/a / ext4 rw\nhost:/x /shared nfs rw,local_lock=all", False),
        ("/dev/a / ext4 rw\nhost:/x /shared nfs rw,nolock", False),
        ("/dev/a / ext4 rw\nx /shared lustre rw,flock", True),
        ("/dev/a / ext4 rw\nx /shared lustre rw,localflock", False),
        ("/dev/a / ext4 rw\nx /shared beegfs rw", False),
        ("/dev/a / ext4 rw\nx /shareds beegfs rw", True),
        ("/dev/a / ext4 rw\nx /shared/my\\040run beegfs rw", False),
        ("x /shared/my\\040run beegfs rw\ny /shared/my\\040run ext4 rw", True),  # the later mount is on top
    ],
)
def test_file_systems_with_reliable_locks(tmp_path, monkeypatch, mounts, reliable):
    (tmp_path / "mounts").write_text("".join(f"{mount} 0 0\n" for mount in mounts.split("\n")))
    monkeypatch.setattr(run_lock, "MOUNTS", tmp_path / "mounts")
    reason = run_lock.unreliable(Path("/shared/my run/deep"))
    assert (reason is None) == reliable
    assert reliable or "may keep locks from other machines" in str(reason)


def test_a_file_system_without_locks_raises_an_os_error(folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="not implemented"):
        run_lock.hold("demo")
