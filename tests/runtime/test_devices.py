"""A claimed device belongs to one process until that ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attrib_core.common.errors import InputError
from attrib_core.runtime import devices
from tests.runtime.device_fixtures import HOLD, fake_gpus, start


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Two fake GPUs, locks in a folder of the test."""
    yield from fake_gpus("0,1", tmp_path / "locks", monkeypatch)


def test_a_killed_process_frees_its_device(environment, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    holder = start(HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "GPU-abc\n"
    with pytest.raises(InputError, match=r"all GPUs \(GPU-abc\) are held.*--resources gpu=1"):
        devices.claim(patience=0)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert devices.claim(patience=0) == "GPU-abc"


def test_claim_waits_for_a_device(environment, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    holder = start(HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "3\n"
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            holder.kill()
            holder.wait()

    monkeypatch.setattr(devices.time, "sleep", sleep)
    assert devices.claim(patience=600) == "3"
    assert len(waits) == 3 and min(waits) > 0


def test_a_child_of_a_holder_uses_the_device_of_its_parent(environment):
    name = devices.claim()
    child = (
        "import os; from attrib_core.runtime import devices;"
        " print(devices.claim(), os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", name]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (devices.CHOICE, "cpu"),
        (devices.CHOICE, "cuda:1"),
        ("CUDA_VISIBLE_DEVICES", ""),
        (devices.CLAIMED, "0"),
    ],
)
def test_no_claim(environment, monkeypatch, variable, value, tmp_path):
    monkeypatch.setenv(variable, value)
    before = dict(os.environ)
    assert devices.claim() is None
    assert dict(os.environ) == before
    assert not (tmp_path / "locks").exists()


@pytest.mark.parametrize("scheduler", ["SLURM_JOB_ID", "PBS_JOBID"])
def test_a_schedulers_single_device_is_left_as_it_is(environment, monkeypatch, scheduler, tmp_path):
    monkeypatch.setenv(scheduler, "12")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    before = dict(os.environ)
    assert devices.claim() is None
    assert dict(os.environ) == before
    assert not (tmp_path / "locks").exists()


def test_each_job_claims_one_of_several_devices_of_a_scheduler(environment, monkeypatch):
    """Snakemake inside one allocation; the numbers of another allocation are other devices."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    holder = start(HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "0\n"
    assert devices.claim(patience=0) == "1"
    monkeypatch.delenv(devices.CLAIMED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(InputError, match="all GPUs"):
        devices.claim(patience=0)
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert devices.claim(patience=0) == "0"
    holder.kill()
    holder.wait()


def fake_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """Put an `nvidia-smi` on the path that lists these GPUs, the first with a MIG device."""
    program = folder / "nvidia-smi"
    lines = [f"echo 'GPU {number}: Fake (UUID: {uuid})'" for number, uuid in enumerate(uuids)]
    lines.insert(1, "echo '  MIG 1g.10gb Device 0: (UUID: MIG-1)'")
    program.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [("0", "GPU-aaa-1", True), ("GPU-aaa-2", "1", True), ("GPU-aaa-1", "GPU-aaa", False), ("0", "1", False)],
)
def test_a_number_and_a_uuid_are_one_device(environment, monkeypatch, tmp_path, first, second, same):
    """An abbreviated UUID is the one GPU that it matches; "GPU-aaa" matches two, and counts as another device."""
    fake_driver(tmp_path, monkeypatch, "GPU-aaa-1", "GPU-aaa-2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", first)
    holder = start(HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == f"{first}\n"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", second)
    if same:
        with pytest.raises(InputError, match="all GPUs"):
            devices.claim(patience=0)
    else:
        assert devices.claim(patience=0) == second
    holder.kill()
    holder.wait()


def test_without_a_driver_there_is_nothing_to_claim(environment, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(devices.shutil, "which", lambda program: None)
    assert devices.visible() == []
    assert devices.claim() is None


def test_without_the_variable_the_driver_lists_the_devices(environment, monkeypatch, tmp_path):
    fake_driver(tmp_path, monkeypatch, "GPU-1", "GPU-2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.visible() == ["GPU-1", "GPU-2"]
    assert devices.claim() == "GPU-1"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.parametrize(
    ("allowed", "names"), [("0,2", ["0", "2"]), (" 1 , GPU-a ", ["1", "GPU-a"]), ("0,-1,1", ["0"]), ("", [])]
)
def test_visible_reads_the_variable_as_cuda_does(allowed, names):
    assert devices.visible({"CUDA_VISIBLE_DEVICES": allowed}) == names


def test_read_only_locks_of_another_user_still_lock(environment, monkeypatch, tmp_path):
    folder = tmp_path / "locks"
    folder.mkdir()
    for name in ("0", "1"):
        (folder / f"gpu-{name}.lock").touch(mode=0o444)
    assert devices.claim(patience=0) == "0"
    monkeypatch.delenv(devices.CLAIMED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    out, _ = start("from attrib_core.runtime import devices; print(devices.claim())").communicate(timeout=600)
    assert out.strip() == "1"


class FakeTorch:
    """The functions of torch that `choose` calls, with or without a GPU."""

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
    ("gpu", "device", "environment_value", "expected"),
    [
        (True, "auto", None, "cuda"),
        (False, "auto", None, "cpu"),
        (True, "auto", "cpu", "cpu"),
        (True, "cuda:1", "cpu", "cuda:1"),
        (True, "cpu", None, "cpu"),
    ],
)
def test_choose(monkeypatch, gpu, device, environment_value, expected):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(gpu))
    monkeypatch.delenv(devices.CHOICE, raising=False)
    if environment_value:
        monkeypatch.setenv(devices.CHOICE, environment_value)
    assert devices.choose(device) == expected


@pytest.mark.parametrize(
    ("device", "environment_value", "words"),
    [
        ("cuda", None, "device 'cuda': this machine has none"),
        ("gpu", None, "device 'gpu': choose 'auto', 'cpu'"),
        ("auto", "cuda", r"device 'cuda' \(from ATTRIB_DEVICE\): this machine has none"),
    ],
)
def test_choose_never_falls_back_silently(monkeypatch, device, environment_value, words):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(gpu=False))
    monkeypatch.delenv(devices.CHOICE, raising=False)
    if environment_value:
        monkeypatch.setenv(devices.CHOICE, environment_value)
    with pytest.raises(InputError, match=words):
        devices.choose(device)


@pytest.mark.slow
def test_choose_knows_the_real_torch():
    import torch

    assert devices.choose("cpu") == "cpu"
    with pytest.raises(InputError, match="'teapot'"):
        devices.choose("teapot")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="'cuda'"):
            devices.choose("cuda")
