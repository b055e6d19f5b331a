"""Choose the device to compute on, and claim a GPU for a job.

Snakemake counts GPUs but does not assign them, so a job takes one itself, by an operating-system lock on
one file per device. The kernel releases it when the process ends, however it ends.
Standard library only at the top: a device is claimed before torch is imported.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrib_core.common.errors import InputError

LOGGER = logging.getLogger(__name__)
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "COBALT_JOBID", "FLUX_JOB_ID")
CHOICE, LOCKS, CLAIMED = "ATTRIB_DEVICE", "ATTRIB_DEVICE_LOCKS", "ATTRIB_CLAIMED_DEVICE"
DEFAULT_LOCKS = Path("/tmp/attrib_core-devices")  # not $TMPDIR, which may be private to the job
_held: list[int] = []  # open lock files: they must live as long as the process


def choose(device: str = "auto") -> str:
    """Return the device to compute on, as torch names it.

    `auto` is the value of the environment variable ATTRIB_DEVICE, else a GPU if there is one,
    else the CPU. Raises InputError for a device that torch does not know or this machine lacks.
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
    """Return the names of the GPUs that this process may use, without importing torch.

    These are the entries of CUDA_VISIBLE_DEVICES (numbers or UUIDs; CUDA stops at -1) if it is set, else the
    UUIDs of the GPUs that the driver lists; none if there is no driver.
    """
    allowed = environment.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return _uuids()
    found: list[str] = []
    for name in (part.strip() for part in allowed.split(",")):
        if not name or name == "-1":
            break
        found.append(name)
    return found


def _uuids() -> list[str]:
    """Return the UUIDs of the GPUs in the driver's order, that of the bus; a container or cgroup shows only its own."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    return re.findall(r"^GPU \d+: .*\(UUID: ([^)]+)\)$", listed.stdout, flags=re.MULTILINE)


def _lock_names(devices: Sequence[str]) -> list[str]:
    """Return the name of each device in its lock's file name: the UUID if the driver lists it.

    The same number is another device in another container or job, and UUIDs may be abbreviated. Without a
    driver, numbers are prefixed by the id of the scheduler's job, in which they are valid.
    """
    uuids = _uuids()
    job_prefix = next((f"{name}-{os.environ[name]}-" for name in SCHEDULERS if name in os.environ), "")
    found = []
    for name in devices:
        if name.isdecimal():
            known = [uuids[int(name)]] if int(name) < len(uuids) else []
        else:
            known = [uuid for uuid in uuids if uuid.startswith(name)]
        found.append(known[0] if len(known) == 1 else name if not name.isdecimal() else job_prefix + name)
    return found


def claim(*, patience: float = math.inf) -> str | None:
    """Claim a GPU for the life of this process and make it the only visible one; return its name, or None.

    Returns None and changes nothing if there is no GPU, if ATTRIB_DEVICE names one, in a child of a process that
    holds one, and if a cluster's scheduler gave this job a single one. Of several GPUs that a scheduler gave (to a
    Snakemake that starts its jobs inside one allocation) one is claimed. If all are held, waits: another run may
    compute for days. Raises InputError after `patience` seconds.
    """
    if os.environ.get(CHOICE, "auto") not in ("auto", "cuda") or CLAIMED in os.environ:
        return None
    devices = visible()
    scheduled = any(name in os.environ for name in SCHEDULERS)
    if not devices or (scheduled and len(devices) == 1):
        return None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError("a device is claimed before torch uses one, not after")
    folder = Path(os.environ.get(LOCKS, DEFAULT_LOCKS))
    names = [f"gpu-{name.replace('/', '_')}.lock" for name in _lock_names(devices)]
    deadline = time.monotonic() + patience
    reported = False
    while True:
        for name, lock in zip(devices, names, strict=True):
            descriptor = _lock(folder / lock)
            if descriptor is not None:
                _held.append(descriptor)
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers in the order of the driver
                os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[CLAIMED] = name
                LOGGER.info("holding GPU %s", name)
                return name
        if time.monotonic() >= deadline:
            raise InputError(
                f"all GPUs ({', '.join(devices)}) are held by other jobs (locks in {folder});"
                f" run with --resources gpu={len(devices)} or fewer"
            )
        if not reported:
            LOGGER.info(
                "waiting: all GPUs (%s) are held by other jobs (locks in %s)", ", ".join(devices), folder
            )
            reported = True
        time.sleep(0.2)


def _lock(path: Path) -> int | None:
    """Return an open descriptor that holds the file's lock, or None if another process holds it."""
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
