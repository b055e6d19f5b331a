"""Which device computes, and who holds it.

Snakemake counts GPUs but hands none out, so a job takes one itself: an operating-system
lock on one file a device. The kernel frees it when the process ends, however it ends.
Standard library only at the top: a device is claimed before torch is imported.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from attrib_core.errors import InputError

LOGGER = logging.getLogger(__name__)
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "COBALT_JOBID", "FLUX_JOB_ID")
CHOICE, LOCKS, CLAIMED = "ATTRIB_DEVICE", "ATTRIB_DEVICE_LOCKS", "ATTRIB_CLAIMED_DEVICE"
DEFAULT_LOCKS = Path("/tmp/attrib_core-devices")  # not $TMPDIR, which may be a folder of the job's own
_held: list[int] = []  # open lock files: they must live as long as the process


def choose(device: str = "auto") -> str:
    """The device to compute on, as torch names it.

    `auto` is what the environment variable ATTRIB_DEVICE says, else a GPU where there is one,
    else the CPU. Raises InputError for a device that torch does not know or does not have.
    """
    import torch

    named = os.environ.get(CHOICE, "auto") if device == "auto" else device
    source = f" (from {CHOICE})" if named != device else ""
    if named == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(named).type
    except RuntimeError:
        raise InputError(
            f"device {named!r}{source}: choose 'auto', 'cpu', 'cuda' or 'cuda:<number>'"
        ) from None
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(kind, False):
        raise InputError(f"device {named!r}{source}: this machine has none; choose 'auto' or 'cpu'")
    return named


def visible(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the GPUs that this process may use, without asking torch.

    What CUDA_VISIBLE_DEVICES says (numbers or UUIDs; CUDA stops at -1), else the numbers of
    the GPUs that the driver lists, and none where there is no driver.
    """
    allowed = environment.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return [str(number) for number in range(_count())]
    found: list[str] = []
    for name in (part.strip() for part in allowed.split(",")):
        if not name or name == "-1":
            break
        found.append(name)
    return found


def _count() -> int:
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def claim(*, patience: float = 600.0) -> str | None:
    """Take a GPU for the life of this process and make it the only visible one; its name, or None.

    None, and nothing changed, where there is no GPU, where ATTRIB_DEVICE names one,
    under a cluster's scheduler (it has set the device), and in a child of a process that holds one.
    Where all are held, waits; raises InputError after `patience` seconds.
    """
    elsewhere = os.environ.get(CHOICE, "auto") not in ("auto", "cuda")
    if elsewhere or any(name in os.environ for name in (*SCHEDULERS, CLAIMED)):
        return None
    devices = visible()
    if not devices:
        return None
    folder = Path(os.environ.get(LOCKS, DEFAULT_LOCKS))
    deadline = time.monotonic() + patience
    told = False
    while True:
        for name in devices:
            descriptor = _lock(folder / f"gpu-{name.replace('/', '_')}.lock")
            if descriptor is not None:
                _held.append(descriptor)
                os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[CLAIMED] = name
                LOGGER.info("holding GPU %s", name)
                return name
        if time.monotonic() >= deadline:
            raise InputError(
                f"all GPUs ({', '.join(devices)}) are held by other jobs (locks in {folder});"
                f" run with --resources gpu={len(devices)} or fewer"
            )
        if not told:
            LOGGER.info("waiting: all GPUs (%s) are held by other jobs", ", ".join(devices))
            told = True
        time.sleep(0.2)


def _lock(path: Path) -> int | None:
    """An open descriptor that holds the file's lock, or None where another process holds it."""
    try:
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o1777)  # other users of the machine share its GPUs
    except FileExistsError:
        pass
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
