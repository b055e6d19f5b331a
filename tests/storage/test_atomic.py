"""Files are complete or absent: errors, kills and full disks in the middle of writing."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from attrib_core.common.errors import InputError
from attrib_core.storage import atomic, disk_space, tables

ROOT = Path(__file__).parents[2]


def test_a_file_appears_under_its_name_only_when_the_body_ends(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic.writing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename cannot cross disks
    assert path.read_text() == "new"
    assert [one.name for one in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError("no"), InputError("key: value"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, atomic.writing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_file_and_folder_are_flushed_before_anyone_can_read_the_name(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(atomic, "flush", lambda path: steps.append(("flush", path.name)))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: (steps.append(("rename", b.name)), replace(a, b)))
    atomic.write_bytes(tmp_path / "a.txt", b"x")
    assert steps == [("flush", f".a.txt.{os.getpid()}.tmp"), ("rename", "a.txt"), ("flush", tmp_path.name)]


@pytest.mark.parametrize(("number", "what"), [(errno.ENOSPC, "disk"), (errno.EDQUOT, "quota")])
def test_a_full_disk_names_the_file_and_the_remedy(tmp_path, number, what):
    path = tmp_path / "a.txt"
    with pytest.raises(InputError) as caught, atomic.writing(path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{path}: no room left ({what}); make room, or")
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_recognised_by_the_message_and_through_other_errors():
    assert (
        disk_space.full(RuntimeError("Error in write_index: write error: No space left on device")) == "disk"
    )
    assert disk_space.full(OSError(errno.EACCES, "Permission denied")) is None
    try:
        try:
            raise OSError(errno.ENOSPC, "x")
        except OSError:
            raise KeyError("b") from None
    except KeyError as error:
        assert disk_space.full(error) == "disk"


WRITERS = {
    "a table": "tables.write(Path('out'), 'excluded', [{'image_id': f'{n * 7919 % 65537:x}',"
    " 'reason': 'exemplar', 'exemplar_id': 'e'} for n in range(40_000)])",
    "JSON": "tables.write_json(Path('out'), list(range(40_000)))",
    "an index": "import faiss, numpy; from attrib_core.storage import atomic\n"
    "from attrib_core.features.index.inverted_lists import ShardedIndex\n"
    "index = faiss.IndexFlatIP(64); index.add(numpy.ones((4000, 64), 'float32'))\n"
    "with atomic.writing(Path('out')) as temporary: ShardedIndex(index, Path('.')).write(temporary)",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_reports_a_full_disk(tmp_path, writer):
    """With the system's limit on the size of a file, so that the real library raises its real error.

    No compiled modules are written (-B): the limit would truncate them too, and other processes would read them.
    """
    (tmp_path / "out").write_text("old")
    program = (
        "from pathlib import Path; from attrib_core.storage import tables\n"
        "from attrib_core.common.errors import InputError\n"
        f"try:\n{textwrap.indent(WRITERS[writer], ' ')}\nexcept InputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.stdout.startswith("out: no room left (limit on the size of a file (ulimit -f)); make"), done
    assert (tmp_path / "out").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_killed_writer_leaves_a_temporary_file_that_a_sweep_removes(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from attrib_core.storage import tables\n"
        "with tables.writer(Path('deep/out'), tables.schema('excluded')) as sink:\n"
        "    sink.write([{'image_id': 'a', 'reason': 'exemplar', 'exemplar_id': 'e'}])\n"
        "    print('half', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    assert atomic.sweep(tmp_path) == 0  # the writer is running
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    left = list((tmp_path / "deep").iterdir())
    assert [path.name for path in left] == [f".out.{writer.pid}.tmp"]
    kept = tmp_path / "deep" / ".hidden"
    kept.touch()
    assert atomic.sweep(tmp_path, older_than=60) == 0
    os.utime(left[0], (time.time() - 61, time.time() - 61))
    shards = tmp_path / "deep" / f".index.x1.{writer.pid}.tmp"
    shards.mkdir()
    (shards / "0.faiss").touch()
    os.utime(shards, (time.time() - 61, time.time() - 61))
    assert atomic.sweep(tmp_path, older_than=60) == 2
    assert list((tmp_path / "deep").iterdir()) == [kept]


def test_text_is_written_unchanged(tmp_path):
    atomic.write_text(tmp_path / "a", "ö\n\r\n")
    assert (tmp_path / "a").read_bytes() == "ö\n\r\n".encode()
    tables.write_json(tmp_path / "b", {"z": 1, "a": "ö"})
    assert (tmp_path / "b").read_text("utf-8") == '{\n  "a": "ö",\n  "z": 1\n}\n'


def test_check_room_writes_to_see_whether_there_is_room(tmp_path, monkeypatch):
    disk_space.check_room(tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())

    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    folder = tmp_path / ".snakemake" / "attrib_core"
    with pytest.raises(InputError) as caught:
        disk_space.check_room(folder)
    assert str(caught.value).startswith(
        f"{folder}: no room left (disk); make room, or run in a folder on a larger"
    )

    def not_allowed(self, content):
        raise PermissionError(errno.EACCES, "no", str(self))

    monkeypatch.setattr(Path, "write_bytes", not_allowed)
    disk_space.check_room(folder)  # a user without write access may still plan a run


def test_a_disk_is_nearly_full_without_bytes_or_without_files(tmp_path, monkeypatch):
    assert not disk_space.nearly_full(tmp_path)
    room = {"f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 100, "f_favail": 9}
    for change, expected in (({}, False), ({"f_bavail": 10}, True), ({"f_favail": 0}, True)):
        monkeypatch.setattr(atomic.os, "statvfs", lambda path, now=room | change: SimpleNamespace(**now))
        assert disk_space.nearly_full(tmp_path) == expected
    # file systems that do not count files (btrfs) report 0 of 0
    monkeypatch.setattr(
        atomic.os, "statvfs", lambda path: SimpleNamespace(**room | {"f_files": 0, "f_favail": 0})
    )
    assert not disk_space.nearly_full(tmp_path)
