"""Options that several commands of `abc` have, and what can be told of them before a file is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError


def add_pool(one: Any) -> None:
    """Add --pool, features that are searched, to a parser or a group of its options."""
    one.add_argument(
        "--pool",
        type=Path,
        required=True,
        metavar="F",
        help="features of the pool: .pth, .npy, .parquet, or a folder of parts",
    )


def add_mapper(one: Any) -> None:
    """Add --mapper, a checkpoint."""
    one.add_argument(
        "--mapper",
        type=Path,
        metavar="F",
        help="mapper checkpoint; without one features are taken as they are",
    )


def check_names(option: str, files: Sequence[Path], more: str = "") -> None:
    """InputError where two files have one name, by which results tell them apart; `more` ends its message."""
    names = [path.stem for path in files]
    if len(set(names)) < len(names):
        raise InputError(
            f"{option}: two files are named {max(names, key=names.count)!r}, expected different names{more}"
        )


def check_cases(option: str, cases: Sequence[Path] | None, of: str, files: Sequence[Path]) -> None:
    """InputError where JSONs of test cases are given, and not one for each file of the option `of`."""
    if cases is not None and len(cases) != len(files):
        raise InputError(f"{option}: {len(cases)} files, expected one for each of {len(files)} of {of}")
