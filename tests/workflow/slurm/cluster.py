"""A Slurm of one machine with pretended GPUs, for tests: slurmctld, slurmd and munged in a folder of their own.

    python tests/workflow/slurm/cluster.py FOLDER [--gpus 4] [--cpus 4] [--memory 20000]

It says "ready", and lives until its standard input ends, so that it ends with whoever started it, however that
ends; SIGTERM and Ctrl-C end it too. Jobs are then cancelled, the daemons stopped, FOLDER and
/etc/slurm/slurm.conf removed. Should this process itself be killed, the kernel kills its daemons, and the next
start takes the place of the configuration that was left.

Needs root and the packages slurmctld, slurmd, slurm-client and munge of Debian or Ubuntu. Jobs find Slurm's
configuration in /etc/slurm alone, since the executor plugin removes SLURM_CONF from their environment.
Memory is enforced without control groups: once a second slurmd adds up what a job's processes hold, and ends
the job where that is more than it asked for. The GPUs are links to /dev/null, which Slurm hands out as it does
devices, to one job each, by CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
OURS = "# Made by tests/workflow/slurm/cluster.py; removed when that ends.\n"
DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "srun", "squeue", "scancel")
PACKAGES = "slurmctld slurmd slurm-client munge"
PATIENCE = 30.0  # seconds for each daemon
PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

SLURM = """
ClusterName=pretended
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
GresTypes=gpu
MinJobAge=3600
KillWait=2
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
GRES = "NodeName={host} Name=gpu File={folder}/gpu[0-{last}]\n"


class Unavailable(Exception):
    """Why no Slurm can be started here."""


def unavailable() -> str | None:
    """Why no Slurm can be started here, in words; None where one can be tried."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install {PACKAGES}"
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons"
    existing = CONFIGURATION / "slurm.conf"
    if existing.exists() and not existing.read_text("utf-8", "replace").startswith(OURS):
        return f"this machine has a Slurm of its own: {existing}"
    return None


def _program(name: str) -> str | None:
    return shutil.which(
        name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )


def configure(folder: Path, *, gpus: int, cpus: int, memory: int) -> None:
    """Write Slurm's configuration and make the pretended devices; `memory` in MB."""
    values = {
        "folder": folder,
        "host": socket.gethostname().split(".")[0],
        "gpus": gpus,
        "last": gpus - 1,
        "cpus": cpus,
        "memory": memory,
    }
    ports = _free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for number in range(gpus):
        (folder / f"gpu{number}").symlink_to("/dev/null")
    texts = {
        "slurm.conf": SLURM.format(controller_port=ports[0], node_port=ports[1], **values),
        "gres.conf": GRES.format(**values),
        "cgroup.conf": "",
    }
    CONFIGURATION.mkdir(exist_ok=True)
    for name, text in texts.items():
        (CONFIGURATION / name).write_text(OURS + text, "utf-8")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def daemon(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A daemon in the foreground that the kernel kills when this process ends."""
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    program = _program(name)
    assert program is not None
    with (folder / f"{name}.out").open("wb") as out:
        return subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=tie,
            start_new_session=True,
        )


def start(folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start the three daemons, each when the one before answers. Raises Unavailable with what the last one said."""
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    started = []

    def begin(name: str, arguments: Sequence[str], answers: Callable[[], bool]) -> None:
        process = daemon(folder, name, *arguments)
        started.append(process)
        deadline = time.monotonic() + PATIENCE
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                stop(started)
                raise Unavailable(f"{name} did not start: {_last_words(folder, name)}")
            time.sleep(0.1)

    # --force: as root, and below a folder such as /tmp
    begin(
        "munged",
        ["--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        lambda: (folder / "munge.socket").exists(),
    )
    begin("slurmctld", ["-D"], lambda: _said("scontrol", "ping").endswith("is UP"))
    begin("slurmd", ["-D"], lambda: _said("sinfo", "--noheader", "--format=%T") == "idle")
    return started


def _said(*command: str) -> str:
    """What a command of Slurm prints; nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def _last_words(folder: Path, name: str) -> str:
    lines = [
        line
        for path in (folder / f"{name}.out", folder / f"{name}.log")
        if path.exists()
        for line in path.read_text("utf-8", "replace").splitlines()
    ]
    return "; ".join(lines[-3:]) or "it said nothing"


def cancel() -> None:
    """Cancel all jobs and wait until their processes are gone."""
    with suppress(subprocess.TimeoutExpired, OSError):
        _said("scancel", "--user=root")
        deadline = time.monotonic() + PATIENCE
        while _said("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.2)


def stop(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop the daemons, the last first."""
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def clear(folder: Path) -> None:
    """Remove what `configure` made."""
    for name in FILES:
        (CONFIGURATION / name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def ended(*_: object) -> None:
    """For a signal: leave by way of `finally`, and let no second one cut that short."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="A Slurm of one machine with pretended GPUs, for tests.")
    parser.add_argument("folder", type=Path, help="a new folder for its state")
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--memory", type=int, default=20_000, help="of the node, in MB")
    given = parser.parse_args()
    if (reason := unavailable()) is not None:
        sys.exit(reason)
    folder = given.folder.resolve()
    if folder.exists():
        sys.exit(f"{folder}: exists already")
    for number in ENDING:
        signal.signal(number, ended)
    started: list[subprocess.Popen[bytes]] = []
    try:
        configure(folder, gpus=given.gpus, cpus=given.cpus, memory=given.memory)
        started = start(folder)
        print("ready", flush=True)
        sys.stdin.read()
    except Unavailable as error:
        sys.exit(str(error))
    finally:
        if len(started) == len(DAEMONS):
            cancel()
        stop(started)
        clear(folder)


if __name__ == "__main__":
    main()
