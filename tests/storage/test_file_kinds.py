"""Kinds of files are recognised by their bytes, whatever their names."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import save as safetensors_bytes

from attrib_core.common.errors import InputError, reason
from attrib_core.storage import file_kinds
from attrib_core.storage.file_kinds import Kind

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def torch_bytes(value: object, *, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def script_bytes() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), stream)
    return stream.getvalue()


def written(write: object, *values: object, **named: object) -> bytes:
    stream = io.BytesIO()
    write(stream, *values, **named)  # type: ignore[operator]
    return stream.getvalue()


def zip_bytes() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "a")
    return stream.getvalue()


KINDS = [
    (b"", Kind.EMPTY),
    (LFS, Kind.LFS),
    (b"\xef\xbb\xbf\n<!DOCTYPE html><p>404", Kind.HTML),
    (b"<html>", Kind.HTML),
    (b"<?xml version='1.0'?>", Kind.XML),
    (torch_bytes([1]), Kind.TORCH),
    (torch_bytes([1], zipped=False), Kind.TORCH_OLD),
    (script_bytes(), Kind.TORCHSCRIPT),
    (pickle.dumps([1]), Kind.PICKLE),
    (written(np.save, np.ones(3)), Kind.NPY),
    (written(np.savez, a=np.ones(3)), Kind.NPZ),
    (zip_bytes(), Kind.ZIP),
    (zip_bytes()[:40], Kind.ZIP),
    (gzip.compress(b"a"), Kind.GZIP),
    (written(lambda stream: pq.write_table(pa.table({"a": [1]}), stream)), Kind.PARQUET),
    (safetensors_bytes({"a": np.ones(3)}), Kind.SAFETENSORS),
    (b"\x80\x02\0\0\0\0\0\0{" + b" " * 640, Kind.SAFETENSORS),  # a length that begins as a pickle does
    (written(lambda stream: Image.new("RGB", (3, 3)).save(stream, "WEBP")), Kind.IMAGE),
    (b'{"a": 1}', Kind.JSON),
    ("ä".encode() * 300 + b"text", Kind.TEXT),
    (b"x" + "ä".encode() * 300, Kind.TEXT),  # a letter is cut in two by the end of what is read
    (bytes(range(256)), Kind.UNKNOWN),
    (bytes(100), Kind.UNKNOWN),
]


# numbered, since the bytes of archives hold the time, and workers must name tests alike
@pytest.mark.parametrize(("content", "kind"), KINDS, ids=range(len(KINDS)))
def test_kinds_are_recognised_by_their_bytes(content: bytes, kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    assert file_kinds.recognise(tmp_path / "a.npy") is kind


def test_a_file_of_the_wrong_kind_is_named_with_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(LFS)
    with pytest.raises(
        InputError, match=r"a.npy: is a Git LFS pointer: .*git lfs pull.*; expected an array$"
    ):
        file_kinds.wrong_kind(tmp_path / "a.npy", "an array", Kind.NPY)
    file_kinds.wrong_kind(tmp_path / "a.npy", "a pointer", Kind.LFS)
    for name, message in [
        ("none", "none: no such file; expected a file"),
        ("", "a folder; expected a file"),
        ("n" * 300, "name too long"),
    ]:
        with pytest.raises(InputError, match=message):
            file_kinds.recognise(tmp_path / name)


def test_a_reason_is_one_line_without_advice_and_colours() -> None:
    long = "Weights only load failed. \x1b[1mdo so if you trust the source\x1b[0m\n (1) Use weights_only=False. No."
    for error, text in [
        (ValueError(long), "Weights only load failed"),
        (ValueError("pickled data when allow_pickle=False"), "ValueError"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file or directory"),
        (EOFError(), "EOFError"),
        (ValueError("a\x07b"), "a\\x07b"),
        (ValueError("x" * 999), "x" * 199 + "…"),
    ]:
        assert reason(error) == text
