"""Files of `torch.save`: plain data is read in each way, code is refused, files are written atomically."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.abc_benchmark import feature_files
from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import layouts
from attrib_core.features.networks import state_dicts
from attrib_core.storage import torch_files
from tests.files_fixtures import NeedsCode

TENSOR = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_data_is_read_in_each_way(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"feats": TENSOR, "paths": ["x", "y", "z"]}, path, _use_new_zipfile_serialization=zipped)
    for how in ("memory", "mapped"):
        content = torch_files.read(path, tensors=how)
        assert torch.equal(content["feats"], TENSOR) and content["paths"] == ["x", "y", "z"]
    content, places = torch_files.read_with_places(path)
    assert torch.equal(content["feats"], TENSOR) and (places is not None) == zipped
    if places is not None:
        offset, dtype = places.matrix(places.content["feats"]) or (0, "f8")
        assert np.array_equal(np.fromfile(path, dtype, 12, offset=offset), np.arange(12))


@pytest.mark.parametrize("tensors", ["memory", "mapped"])
def test_code_is_refused_and_not_run(
    tensors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pth"
    torch.save([NeedsCode()], path)
    with pytest.raises(InputError, match=r"a.pth: needs code to unpickle \(.*print\), refused; only tensors"):
        torch_files.read(path, tensors=tensors)
    assert not capsys.readouterr().out


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"hello")
    for name, message in (
        ("none.pth", "none.pth: no such file; expected a file of torch.save"),
        ("", "a folder; expected a file of torch.save"),
        ("bad.pth", "bad.pth: is a text; expected a file of torch.save"),
    ):
        with pytest.raises(InputError, match=message):
            torch_files.read(tmp_path / name)


def in_itself() -> Any:
    value: list[Any] = [TENSOR]
    value.append(value)
    return value


def key_of_itself() -> Any:
    value: dict[str, Any] = {"feats": TENSOR}
    value["paths"] = [{"more": value}]
    return value


def nested(depth: int) -> Any:
    value: Any = TENSOR
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make", [in_itself, key_of_itself, lambda: nested(150), lambda: {"state_dict": in_itself()}]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_content_that_is_nested_without_end_is_refused(
    make: Callable[[], Any], zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    torch.save(make(), path, _use_new_zipfile_serialization=zipped)
    readers: list[Callable[[Path], object]] = [
        torch_files.read, lambda path: torch_files.read(path, tensors="mapped"), torch_files.read_with_places,
        feature_files.open_pool, state_dicts.read, layouts.read,
    ]  # fmt: skip
    for read in readers:
        with pytest.raises(
            InputError, match=r"a.pth: not a readable file .*\(nested more than 100 deep, or in"
        ) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_pickle_that_is_deeper_than_python_calls_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save([], path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(
                name, b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"." if name.endswith(".pkl") else content
            )
    for tensors in ("memory", "mapped"):
        with pytest.raises(InputError, match="nested more than 100 deep"):
            torch_files.read(path, tensors=tensors)


@pytest.mark.parametrize("tensors", ["memory", "mapped"])
@pytest.mark.parametrize(("place", "value"), [(38, 0x10), (20, 0)])  # attributes, size when compressed
def test_values_that_torch_would_leave_unread_are_refused(
    tensors: Any, place: int, value: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"feats": TENSOR}, path)
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    content[start + place] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.pth: not a readable file") as caught:
        torch_files.read(path, tensors=tensors)
    assert "data/0' of 48 bytes is marked as empty" in str(caught.value)


def test_an_archive_with_folders_and_empty_tensors_is_read(tmp_path: Path) -> None:
    path, again = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"feats": TENSOR, "none": TENSOR[:0].clone()}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(again, "w") as written:
        names = archive.namelist()
        for folder in ("a/", "a/data/"):
            written.mkdir(folder)
        for name in names:
            written.writestr(name, archive.read(name))
    for tensors in ("memory", "mapped"):
        for one in (path, again):
            found = torch_files.read(one, tensors=tensors)
            assert torch.equal(found["feats"], TENSOR) and found["none"].shape == (0, 4)


def test_what_is_nested_and_shared_soundly_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    shared: Any = [TENSOR]
    for _ in range(60):  # 2 ** 60 ways to the tensor
        shared = [shared, shared]
    for content in (nested(90), shared):
        torch.save(content, path)
        found, places = torch_files.read_with_places(path)
        assert places is not None
        while isinstance(found, list):
            found = found[0]
        assert torch.equal(found, TENSOR)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = torch_files.save({"a": TENSOR}, tmp_path / "new" / "a.pth")
    with pytest.raises(AttributeError):
        torch_files.save(lambda: None, path)  # cannot be pickled
    assert torch.equal(torch_files.read(path)["a"], TENSOR)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (TENSOR.long(), "a tensor (3, 4) of int64"),
        ({"b": 1, "a": 2}, "a dict with ['a', 'b']"),
        (dict.fromkeys(range(10)), "a dict with ['0', '1', '2', '3', '4', '5', '6', '7'] and 2 more"),
        ([1, 2], "a list of 2"),
        (None, "missing"),
        ("x", "a str"),
    ],
)
def test_values_are_described_for_messages(value: Any, text: str) -> None:
    assert torch_files.describe(value) == text
