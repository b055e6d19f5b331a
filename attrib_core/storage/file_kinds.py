"""Recognise by its first bytes what a file really is, for messages about a file that is not what its name says."""

from __future__ import annotations

import zipfile
from enum import StrEnum
from pathlib import Path

from attrib_core.common.errors import InputError, reason

HEAD = 512
"""Bytes that are read of a file."""


class Kind(StrEnum):
    """Kinds of files; the value is how a message names one."""

    EMPTY = "an empty file"
    LFS = "a Git LFS pointer: the file itself was not downloaded, `git lfs pull` fetches it"
    ANNEX = "a git-annex pointer: the file itself was not downloaded, `git annex get` fetches it"
    HTML = "an HTML page, as a failed download leaves it"
    XML = "an XML file"
    TORCH = "a file of torch.save"
    TORCH_OLD = "a file of torch.save in the format from before 2020"
    TORCHSCRIPT = "a TorchScript program"
    PICKLE = "a pickle of Python objects"
    NPZ = "an archive of several arrays (.npz)"
    ZIP = "a zip archive, as .xlsx files are"
    GZIP = "a gzip file, to be unpacked first"
    ZSTD = "a zstd file, to be unpacked first"
    XZ = "an xz file, to be unpacked first"
    BZIP2 = "a bzip2 file, to be unpacked first"
    RAR = "a RAR archive"
    SEVEN_ZIP = "a 7z archive"
    OFFICE = "a Microsoft compound file, as .doc and .xls are"
    TAR = "a tar archive"
    NPY = "an array of NumPy (.npy)"
    PARQUET = "a Parquet file"
    ARROW = "an Arrow file"
    SAFETENSORS = "a safetensors file"
    HDF5 = "an HDF5 file"
    SQLITE = "an SQLite database"
    PDF = "a PDF"
    IMAGE = "an image"
    JSON = "a JSON file"
    TEXT = "a text"
    UNKNOWN = "of an unknown kind"


SIGNATURES: tuple[tuple[bytes, Kind], ...] = (
    (b"version https://git-lfs.github.com/", Kind.LFS),
    (b"/annex/objects/", Kind.ANNEX),
    (b"\x1f\x8b", Kind.GZIP),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"\xfd7zXZ\x00", Kind.XZ),
    (b"Rar!\x1a\x07", Kind.RAR),
    (b"7z\xbc\xaf\x27\x1c", Kind.SEVEN_ZIP),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind.OFFICE),
    (b"\x93NUMPY", Kind.NPY),
    (b"ARROW1\x00\x00", Kind.ARROW),
    (b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (b"SQLite format 3\x00", Kind.SQLITE),
    (b"%PDF-", Kind.PDF),
    (b"\x89PNG", Kind.IMAGE),
    (b"\xff\xd8\xff", Kind.IMAGE),
    (b"GIF87a", Kind.IMAGE),
    (b"GIF89a", Kind.IMAGE),
)
TORCH_OLD_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number that begins each file of the old torch.save, as it is pickled."""


def recognise(path: Path, expected: str = "a file") -> Kind:
    """Return the kind of a file, whatever its name.

    Raises InputError where there is no file to read; `expected` ends its message.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {expected}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; expected {expected}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path}: cannot be read ({reason(error)}); expected {expected}") from None
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(path)
    return of_bytes(head)


def of_bytes(head: bytes) -> Kind:
    """Return the kind of a file that begins with these bytes; a zip archive is not looked into."""
    if not head:
        return Kind.EMPTY
    for signature, kind in SIGNATURES:
        if head.startswith(signature):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Kind.ZIP
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return Kind.BZIP2
    if head.startswith((b"PAR1", b"PARE")) and _text(head) is Kind.UNKNOWN:  # not the word PARENT
        return Kind.PARQUET
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.IMAGE
    if head[257:262] == b"ustar":
        return Kind.TAR
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return Kind.SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return Kind.TORCH_OLD if head[2:].startswith(TORCH_OLD_NUMBER) else Kind.PICKLE
    return _text(head)


def _text(head: bytes) -> Kind:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return Kind.HTML
    if text.startswith((b"<?xml", b"<svg")):
        return Kind.XML
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise a letter is cut off at the end
            return Kind.UNKNOWN
    if any(byte < 32 and byte not in b"\t\n\f\r" for byte in head):
        return Kind.UNKNOWN
    return Kind.JSON if text.startswith((b"{", b"[")) else Kind.TEXT


def _archive(path: Path) -> Kind:
    """Return the kind of a zip archive, by the names of its entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises many kinds of errors for a damaged archive
        return Kind.ZIP
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return Kind.TORCHSCRIPT
    if "data.pkl" in inner:
        return Kind.TORCH
    return Kind.NPZ if names and all(name.endswith(".npy") for name in names) else Kind.ZIP


def wrong_kind(path: Path, expected: str, *right: Kind) -> None:
    """Raise InputError for a file that is surely none of the kinds `right`; `expected` ends the message.

    A file of an unknown kind passes: what reads it says what is wrong with it.
    """
    kind = recognise(path, expected)
    if kind not in (*right, Kind.UNKNOWN):
        raise InputError(f"{path}: is {kind}; expected {expected}")
