"""Which device computes, and who holds it.

Snakemake counts GPUs but hands none out, so a job takes one itself: an operating-system
lock on one file a device. The kernel frees it when the process ends, however it ends.
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

    What CUDA_VISIBLE_DEVICES says (numbers or UUIDs; CUDA stops at -1), else the UUIDs of
    the GPUs that the driver lists, and none where there is no driver.
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
    """UUIDs of the machine's GPUs in the driver's order, that of the bus; a container or a job's cgroup
    shows its own alone."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    return re.findall(r"^GPU \d+: .*\(UUID: ([^)]+)\)$", listed.stdout, flags=re.MULTILINE)


def _lock_names(devices: Sequence[str]) -> list[str]:
    """What each device is called in its lock's name: the UUID where the driver tells it.

    Numbers mean other devices in another container or job, and UUIDs may be cut short. Where
    no driver says more, a scheduler's job has numbers of its own.
    """
    uuids = _uuids()
    own = next((f"{name}-{os.environ[name]}-" for name in SCHEDULERS if name in os.environ), "")
    found = []
    for name in devices:
        if name.isdecimal():
            known = [uuids[int(name)]] if int(name) < len(uuids) else []
        else:
            known = [uuid for uuid in uuids if uuid.startswith(name)]
        found.append(known[0] if len(known) == 1 else name if not name.isdecimal() else own + name)
    return found


def claim(*, patience: float = math.inf) -> str | None:
    """Take a GPU for the life of this process and make it the only visible one; its name, or None.

    None, and nothing changed, where there is no GPU, where ATTRIB_DEVICE names one, in a child of a
    process that holds one, and where a cluster's scheduler has given this job a single one. Of
    several that a scheduler gave (to a Snakemake that starts its jobs inside one allocation) one is
    taken. Where all are held, waits: another run, or somebody else, may compute for days. Raises InputError after
    `patience` seconds.
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
    told = False
    while True:
        for name, lock in zip(devices, names, strict=True):
            descriptor = _lock(folder / lock)
            if descriptor is not None:
                _held.append(descriptor)
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers as the driver has them
                os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[CLAIMED] = name
                LOGGER.info("holding GPU %s", name)
                return name
        if time.monotonic() >= deadline:
            raise InputError(
                f"all GPUs ({', '.join(devices)}) are held by other jobs (locks in {folder});"
                f" run with --resources gpu={len(devices)} or fewer"
            )
        if not told:
            LOGGER.info(
                "waiting: all GPUs (%s) are held by other jobs (locks in %s)", ", ".join(devices), folder
            )
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
