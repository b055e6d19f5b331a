"""Lock a run: one Snakemake at most works on it, and no job outlives its Snakemake.

Snakemake's own lock is a file that remains when Snakemake is killed, until a person removes it. These locks
are the operating system's (`flock`): they end with the process that holds them, however it ends. In
`.snakemake/attrib_core/`,

    <run>.lock    is held by the Snakemake that works on the run, and names its process,
    <run>.jobs    is shared by its jobs on this machine.

A job also watches the Snakemake that started it and ends soon after it: its result would be lost.
Standard library only, since every job imports this first.
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
OWNER = "ATTRIB_SNAKEMAKE"  # environment variable that names the Snakemake of a job
FOLDER = Path(".snakemake/attrib_core")
MOUNTS = Path("/proc/self/mounts")
SECONDS_BETWEEN_CHECKS = 0.5
SECONDS_TO_RETRY = 1.0  # others hold a lock for an instant to check whether it is free
# Local file systems, and shared ones whose locks reach all machines.
LOCAL = frozenset("ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs reiserfs tmpfs ramfs overlay".split())
SHARED = frozenset(["gpfs", "ceph"])
_held: list[int] = []  # open lock files: they must live as long as the process


def unreliable(folder: Path) -> str | None:
    """Return why locks in a folder may not exclude other machines; None if they do.

    A file system of unknown type counts as unreliable.
    """
    if not MOUNTS.exists():
        return None
    kind, options = _mount(folder.resolve())
    if kind in LOCAL or kind in SHARED:
        return None
    if kind in ("nfs", "nfs4") and not {"nolock", "local_lock=all", "local_lock=flock"} & options:
        return None
    if kind == "lustre" and "flock" in options:
        return None
    return f"its file system, of type {kind!r}, may keep locks from other machines"


def _mount(path: Path) -> tuple[str, frozenset[str]]:
    """Return type and mount options of the file system of a path."""
    best, found = -1, ("unknown", frozenset[str]())
    for line in MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
        _, point, kind, options, *_ = line.split(" ")
        mounted = Path(point.encode().decode("unicode_escape", "replace"))  # a space is written as \040
        if path.is_relative_to(mounted) and len(mounted.parts) >= best:
            best, found = len(mounted.parts), (kind, frozenset(options.split(",")))
    return found


def hold(run: str, folder: Path = FOLDER) -> Path:
    """Lock a run for this Snakemake until the process ends; return the path of the lock.

    Waits for jobs of a Snakemake that was killed, which end by themselves. Raises InputError
    if another Snakemake works on the run, and OSError if the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f"{run}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + SECONDS_TO_RETRY
    while not _locked(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise _in_use(run, descriptor)
        time.sleep(0.05)
    _held.append(descriptor)
    with suppress(OSError):  # on a full disk the lock holds without naming its owner
        os.truncate(descriptor, 0)
        now = time.strftime("%Y-%m-%d %H:%M")
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} since {now}\n".encode(), 0)
    jobs = folder.resolve() / f"{run}.jobs"
    _wait_for_jobs(jobs)
    if (me := _identity(os.getpid())) is not None:
        os.environ[OWNER] = json.dumps(me | {"jobs": str(jobs)})
    return lock


def check_free(run: str, folder: Path = FOLDER) -> None:
    """Raise the InputError of `hold` if another Snakemake works on the run, without locking it.

    Called before the jobs are planned: jobs planned while another Snakemake works would repeat what it finishes.
    """
    try:
        descriptor = os.open(folder / f"{run}.lock", os.O_RDONLY)
    except FileNotFoundError:
        return
    if not _locked(descriptor, fcntl.LOCK_SH):
        raise _in_use(run, descriptor)
    os.close(descriptor)


def _in_use(run: str, descriptor: int) -> InputError:
    who = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip() or "process unknown"
    os.close(descriptor)
    return InputError(
        f"run {run!r}: another Snakemake is at work on it ({who}); wait until that has ended, or name another run"
        " (config key run)"
    )


def _wait_for_jobs(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    reported = False
    try:
        while not _locked(descriptor, fcntl.LOCK_EX):
            if not reported:
                LOGGER.warning("waiting for jobs of a Snakemake that was killed; they end by themselves")
                reported = True
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


def register_job() -> None:
    """Register this process as a job of the run, and end it soon after the Snakemake that started it.

    Does nothing if no Snakemake of this machine started it (a cluster's job, a call by hand).
    """
    owner = json.loads(os.environ.get(OWNER, "null"))
    me = _identity(os.getpid())
    if owner is None or me is None or any(owner[name] != me[name] for name in ("boot", "processes")):
        return
    with suppress(OSError):  # a job that cannot write to the folder cannot disturb the run
        descriptor = os.open(owner["jobs"], os.O_RDWR | os.O_CREAT, 0o666)
        _held.append(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not _alive(owner):
        raise InputError("the Snakemake that started this job is gone; run its command again")
    threading.Thread(target=_watch, args=(owner,), name="watch of Snakemake", daemon=True).start()


def _watch(owner: dict[str, str | int]) -> None:
    while _alive(owner):
        time.sleep(SECONDS_BETWEEN_CHECKS)
    LOGGER.error("ended: the Snakemake that started this job is gone")
    os._exit(1)


def _identity(pid: int) -> dict[str, str | int] | None:
    """Return what identifies a process uniquely, also among earlier ones; None if that is unknown."""
    try:
        return {
            "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "processes": os.readlink("/proc/self/ns/pid"),  # a container numbers its own processes
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
    """Return state and start time of a process, from /proc/<pid>/stat; its name, in brackets, may contain anything."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return fields[0], fields[19]
