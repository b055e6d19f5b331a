"""Check the `--out` path of a command before anything is computed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from attrib_core.common.errors import InputError
from attrib_core.storage import text_files


def check_folder(path: Path) -> None:
    """Raise InputError where --out is not a folder that can be written, or created, or has bytes that are not UTF-8."""
    text_files.check_path(path, where="--out: ")
    found = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not found.is_dir():
        raise InputError(f"--out: {found} is a file, expected a folder or the name of a new one")
    try:  # the mode of a folder is not enough: its file system may be read-only
        TemporaryDirectory(dir=found).cleanup()
    except OSError as error:
        raise InputError(
            f"--out: {path} cannot be written ({error.strerror}), expected a folder to write to"
        ) from None


def check_pth(path: Path) -> None:
    """Raise InputError where --out cannot become a file NAME.pth."""
    text_files.check_path(path, where="--out: ")
    if path.suffix != ".pth":
        raise InputError(f"--out: {path}, expected a file NAME.pth")
    if path.is_dir():
        raise InputError(f"--out: {path} is a folder, expected a file NAME.pth")
    check_folder(path.parent)
