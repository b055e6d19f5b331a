"""A Slurm on one machine with fake GPUs, for tests: slurmctld, slurmd and munged in one folder.

    python tests/workflow/slurm/cluster.py FOLDER [--gpus 4] [--cpus 4] [--memory 20000]

It prints "ready" and runs until its standard input ends, so that it ends with its parent process, however that
ends; SIGTERM and Ctrl-C end it too. Jobs are then cancelled, the daemons stopped, and FOLDER and
/etc/slurm/slurm.conf removed. If this process itself is killed, the kernel kills its daemons, and the next
start replaces the configuration that was left.

Needs root and the packages slurmctld, slurmd, slurm-client and munge of Debian or Ubuntu. Jobs find Slurm's
configuration only in /etc/slurm, since the executor plugin removes SLURM_CONF from their environment.
Memory is enforced without control groups: every second slurmd adds up the memory of a job's processes, and ends
a job that uses more than it requested. The GPUs are links to /dev/null, which Slurm assigns like devices, each
to one job, by CUDA_VISIBLE_DEVICES.
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
OURS = "# Written by tests/workflow/slurm/cluster.py; removed when that ends.\n"
DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "srun", "squeue", "scancel")
PACKAGES = "slurmctld slurmd slurm-client munge"
PATIENCE = 30.0  # seconds for each daemon
PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

SLURM = """
ClusterName=test
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
    """The reason why Slurm cannot be started here."""


def unavailable() -> str | None:
    """Return why Slurm cannot be started here; None if it may work."""
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
    """Write Slurm's configuration and create the fake devices; `memory` in MB."""
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
        for unbound in sockets:
            unbound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]
    finally:
        for bound in sockets:
            bound.close()


def daemon(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a daemon in the foreground that the kernel kills when this process ends."""
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
    """Start the three daemons, each when the one before answers. Raises Unavailable with the last lines of its log."""
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    started = []

    def start_daemon(name: str, arguments: Sequence[str], answers: Callable[[], bool]) -> None:
        process = daemon(folder, name, *arguments)
        started.append(process)
        deadline = time.monotonic() + PATIENCE
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                stop(started)
                raise Unavailable(f"{name} did not start: {_last_lines(folder, name)}")
            time.sleep(0.1)

    # --force: as root, and in a folder such as /tmp
    start_daemon(
        "munged",
        ["--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        lambda: (folder / "munge.socket").exists(),
    )
    start_daemon("slurmctld", ["-D"], lambda: _output_of("scontrol", "ping").endswith("is UP"))
    start_daemon("slurmd", ["-D"], lambda: _output_of("sinfo", "--noheader", "--format=%T") == "idle")
    return started


def _output_of(*command: str) -> str:
    """Return the output of a command of Slurm; nothing if it fails."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def _last_lines(folder: Path, name: str) -> str:
    lines = [
        line
        for path in (folder / f"{name}.out", folder / f"{name}.log")
        if path.exists()
        for line in path.read_text("utf-8", "replace").splitlines()
    ]
    return "; ".join(lines[-3:]) or "no output"


def cancel() -> None:
    """Cancel all jobs and wait until their processes are gone."""
    with suppress(subprocess.TimeoutExpired, OSError):
        _output_of("scancel", "--user=root")
        deadline = time.monotonic() + PATIENCE
        while _output_of("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.2)


def stop(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop the daemons, the last one first."""
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def clear(folder: Path) -> None:
    """Remove what `configure` wrote."""
    for name in FILES:
        (CONFIGURATION / name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def ended(*_: object) -> None:
    """Handle a signal: exit through `finally`, and ignore further signals."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="A Slurm on one machine with fake GPUs, for tests.")
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
