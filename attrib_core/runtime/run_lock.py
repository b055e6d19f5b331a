"""Who works on a run: one Snakemake at most, and no job that outlives it.

Snakemake's own lock is a file, which stays when Snakemake is killed and then waits for a person.
These locks are the operating system's (`flock`): they end with the process that holds them,
however it ends. Below `.snakemake/attrib_core/`

    <run>.lock    is held by the Snakemake that works on the run, and says who it is,
    <run>.jobs    is shared by its jobs on this machine.

A job also watches the Snakemake that started it and ends soon after it: nobody would take its
result. Standard library only, since jobs begin here.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import threading
import time
from contextlib import suppress
from pathlib import Path

from attrib_core.common.errors import InputError

LOGGER = logging.getLogger(__name__)
OWNER = "ATTRIB_SNAKEMAKE"  # tells jobs which Snakemake started them
FOLDER = Path(".snakemake/attrib_core")
MOUNTS = Path("/proc/self/mounts")
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_OF_A_LOOK = 1.0  # others hold a lock for an instant to see whether it is free
# File systems of one machine, and those of many whose locks reach all of them.
ONE_MACHINE = frozenset("ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs reiserfs tmpfs ramfs overlay".split())
REACHING = frozenset(["gpfs", "ceph"])
_held: list[int] = []  # open lock files: they must live as long as the process


def unreliable(folder: Path) -> str | None:
    """Why locks below a folder may not keep two machines apart; None where they do.

    A file system that nobody named counts as unreliable.
    """
    if not MOUNTS.exists():
        return None
    kind, options = _mount(folder.resolve())
    if kind in ONE_MACHINE or kind in REACHING:
        return None
    if kind in ("nfs", "nfs4") and not {"nolock", "local_lock=all", "local_lock=flock"} & options:
        return None
    if kind == "lustre" and "flock" in options:
        return None
    return f"its file system, of type {kind!r}, may keep locks from other machines"


def _mount(path: Path) -> tuple[str, frozenset[str]]:
    """Type and options of the file system on which a path lies."""
    best, found = -1, ("unknown", frozenset[str]())
    for line in MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
        _, point, kind, options, *_ = line.split(" ")
        place = Path(point.encode().decode("unicode_escape", "replace"))  # a space stands there as \040
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, found = len(place.parts), (kind, frozenset(options.split(",")))
    return found


def hold(run: str, folder: Path = FOLDER) -> Path:
    """Be the one Snakemake that works on a run until this process ends; the lock's file.

    Waits for jobs of a Snakemake that was killed, which end by themselves. Raises InputError
    where another Snakemake is at work, and OSError where the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f"{run}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + SECONDS_OF_A_LOOK
    while not _locked(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise _at_work(run, descriptor)
        time.sleep(0.05)
    _held.append(descriptor)
    with suppress(OSError):  # on a full disk the lock holds, and does not say whose it is
        os.truncate(descriptor, 0)
        now = time.strftime("%Y-%m-%d %H:%M")
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} since {now}\n".encode(), 0)
    jobs = folder.resolve() / f"{run}.jobs"
    _wait_for_jobs(jobs)
    if (me := _identity(os.getpid())) is not None:
        os.environ[OWNER] = json.dumps(me | {"jobs": str(jobs)})
    return lock


def check_free(run: str, folder: Path = FOLDER) -> None:
    """Raise the error of `hold` if that would fail, and hold nothing. For before the jobs are planned:

    a plan made while another Snakemake worked would do again what that has done since.
    """
    try:
        descriptor = os.open(folder / f"{run}.lock", os.O_RDONLY)
    except FileNotFoundError:
        return
    if not _locked(descriptor, fcntl.LOCK_SH):
        raise _at_work(run, descriptor)
    os.close(descriptor)


def _at_work(run: str, descriptor: int) -> InputError:
    who = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip() or "it has not said which"
    os.close(descriptor)
    return InputError(
        f"run {run!r}: another Snakemake is at work on it ({who}); wait until that has ended, or give this one"
        " a run of its own (config key run)"
    )


def _wait_for_jobs(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    told = False
    try:
        while not _locked(descriptor, fcntl.LOCK_EX):
            if not told:
                LOGGER.warning("waiting for jobs of a Snakemake that was killed; they end by themselves")
                told = True
            time.sleep(0.1)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def join() -> None:
    """Called by a job as it begins: be counted among the jobs, and end when its Snakemake has ended.

    Nothing where no Snakemake of this machine started it (a cluster's job, a call by hand).
    """
    owner = json.loads(os.environ.get(OWNER, "null"))
    me = _identity(os.getpid())
    if owner is None or me is None or any(owner[name] != me[name] for name in ("boot", "processes")):
        return
    with suppress(OSError):  # a folder that the job cannot write is none that it could disturb
        descriptor = os.open(owner["jobs"], os.O_RDWR | os.O_CREAT, 0o666)
        _held.append(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not _alive(owner):
        raise InputError("the Snakemake that started this job is gone; give its command again")
    threading.Thread(target=_watch, args=(owner,), name="watch of Snakemake", daemon=True).start()


def _watch(owner: dict[str, str | int]) -> None:
    while _alive(owner):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    LOGGER.error("ended: the Snakemake that started this job is gone")
    os._exit(1)


def _identity(pid: int) -> dict[str, str | int] | None:
    """What tells a process from all others, of this machine and before; None where that cannot be told."""
    try:
        return {
            "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "processes": os.readlink("/proc/self/ns/pid"),  # a container counts its own
            "pid": pid,
            "started": _state(pid)[1],
        }
    except (OSError, IndexError):
        return None


def _alive(owner: dict[str, str | int]) -> bool:
    try:
        state, started = _state(int(owner["pid"]))
    except (OSError, IndexError):
        return False
    return state not in "ZX" and started == owner["started"]


def _state(pid: int) -> tuple[str, str]:
    """State and start of a process, as `proc_pid_stat` has them: its name, in brackets, may hold anything."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return fields[0], fields[19]
