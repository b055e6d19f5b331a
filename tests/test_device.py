"""A claimed device belongs to one process, until it ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attrib_core import device
from attrib_core.errors import InputError

ROOT = Path(__file__).parent.parent
VARIABLES = (*device.SCHEDULERS, device.CHOICE, device.LOCKS, device.CLAIMED, "CUDA_VISIBLE_DEVICES")

CLAIM_AND_TELL = """
import os, sys, time
from attrib_core import device
assert "torch" not in sys.modules
name = device.claim(patience=30)
assert os.environ["CUDA_VISIBLE_DEVICES"] == name
begin = time.time()
time.sleep(float(sys.argv[1]))
print(name, begin, time.time(), flush=True)
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Two pretended GPUs, locks in a folder of the test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv(device.LOCKS, str(tmp_path / "locks"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(device, "_held", [])
    yield
    for descriptor in device._held:
        os.close(descriptor)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


def test_several_processes_never_share_a_device(environment):
    running = [start(CLAIM_AND_TELL, "0.25") for _ in range(6)]
    spans: dict[str, list[tuple[float, float]]] = {}
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        name, begin, end = out.split()
        spans.setdefault(name, []).append((float(begin), float(end)))
    assert set(spans) == {"0", "1"}
    for held in spans.values():
        held.sort()
        assert all(one[1] <= two[0] for one, two in zip(held, held[1:], strict=False)), held


def test_a_killed_process_frees_its_device(environment, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    holder = start(
        "from attrib_core import device; import time; print(device.claim(), flush=True); time.sleep(60)"
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "GPU-abc\n"
    with pytest.raises(InputError, match=r"all GPUs \(GPU-abc\) are held.*--resources gpu=1"):
        device.claim(patience=0)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert device.claim(patience=0) == "GPU-abc"


def test_it_waits_for_a_device(environment, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    holder = start(
        "from attrib_core import device; import time; print(device.claim(), flush=True); time.sleep(0.5)"
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    begin = time.monotonic()
    assert device.claim(patience=30) == "3"
    assert time.monotonic() - begin > 0.1
    holder.wait()


def test_a_child_of_a_holder_uses_the_device_of_its_parent(environment):
    name = device.claim()
    child = (
        "import os; from attrib_core import device; print(device.claim(), os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", name]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SLURM_JOB_ID", "12"), ("PBS_JOBID", "7"), (device.CHOICE, "cpu"), ("CUDA_VISIBLE_DEVICES", "")],
)
def test_no_claim(environment, monkeypatch, variable, value, tmp_path):
    monkeypatch.setenv(variable, value)
    before = dict(os.environ)
    assert device.claim() is None
    assert dict(os.environ) == before
    assert not (tmp_path / "locks").exists()


def test_without_a_driver_there_is_nothing_to_claim(environment, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(device.shutil, "which", lambda program: None)
    assert device.visible() == []
    assert device.claim() is None


def test_without_the_variable_the_driver_is_asked(environment, monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: Fake (UUID: GPU-1)'\necho '  MIG 1g (UUID: MIG-1)'\necho 'GPU 1: Fake (UUID: GPU-2)'\n"
    )
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert device.visible() == ["0", "1"]
    assert device.claim() == "0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize(
    ("allowed", "names"), [("0,2", ["0", "2"]), (" 1 , GPU-a ", ["1", "GPU-a"]), ("0,-1,1", ["0"]), ("", [])]
)
def test_visible_reads_the_variable_as_cuda_does(allowed, names):
    assert device.visible({"CUDA_VISIBLE_DEVICES": allowed}) == names


def test_locks_of_another_user_that_cannot_be_written_still_lock(environment, monkeypatch, tmp_path):
    folder = tmp_path / "locks"
    folder.mkdir()
    for name in ("0", "1"):
        (folder / f"gpu-{name}.lock").touch(mode=0o444)
    assert device.claim(patience=0) == "0"
    monkeypatch.delenv(device.CLAIMED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    out, _ = start(CLAIM_AND_TELL, "0").communicate(timeout=60)
    assert out.split()[0] == "1"


class FakeTorch:
    """As much of torch as `choose` asks, with or without a GPU."""

    def __init__(self, gpu: bool) -> None:
        class Cuda:
            is_available = staticmethod(lambda: gpu)

        class Backends:
            class mps:
                is_available = staticmethod(lambda: False)

        class Device:
            def __init__(self, name: str) -> None:
                self.type = name.split(":")[0]
                if self.type not in ("cpu", "cuda", "mps"):
                    raise RuntimeError("Expected one of cpu, cuda ...")

        self.cuda, self.backends, self.device = Cuda, Backends, Device


@pytest.mark.parametrize(
    ("gpu", "asked", "environment_says", "answer"),
    [
        (True, "auto", None, "cuda"),
        (False, "auto", None, "cpu"),
        (True, "auto", "cpu", "cpu"),
        (True, "cuda:1", "cpu", "cuda:1"),
        (True, "cpu", None, "cpu"),
    ],
)
def test_choose(monkeypatch, gpu, asked, environment_says, answer):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(gpu))
    monkeypatch.delenv(device.CHOICE, raising=False)
    if environment_says:
        monkeypatch.setenv(device.CHOICE, environment_says)
    assert device.choose(asked) == answer


@pytest.mark.parametrize(
    ("asked", "environment_says", "words"),
    [
        ("cuda", None, "device 'cuda': this machine has none"),
        ("gpu", None, "device 'gpu': choose 'auto', 'cpu'"),
        ("auto", "cuda", r"device 'cuda' \(from ATTRIB_DEVICE\): this machine has none"),
    ],
)
def test_choose_never_falls_back_in_silence(monkeypatch, asked, environment_says, words):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(gpu=False))
    monkeypatch.delenv(device.CHOICE, raising=False)
    if environment_says:
        monkeypatch.setenv(device.CHOICE, environment_says)
    with pytest.raises(InputError, match=words):
        device.choose(asked)


@pytest.mark.slow
def test_choose_knows_the_real_torch():
    import torch

    assert device.choose("cpu") == "cpu"
    with pytest.raises(InputError, match="'teapot'"):
        device.choose("teapot")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="'cuda'"):
            device.choose("cuda")
