"""Arrays in `.npy` files: sound ones of any layout are read, and a file with more than its header says is none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from attrib_core.common.errors import InputError
from attrib_core.storage import numpy_files

ROWS = np.arange(150, dtype="<f4").reshape(50, 3)
ARRAYS = [
    ROWS, np.asfortranarray(ROWS), ROWS.astype(">f8"), ROWS[:0], ROWS.astype(bool), ROWS.astype("c8"), ROWS[::7, 1:],
    np.array(5, dtype="u2"), ROWS.astype("f2").reshape(5, 5, 6),
]  # fmt: skip


def stored(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda one: f"{one.dtype.str}{one.shape}")
def test_sound_files(array: np.ndarray, version: tuple[int, int], mapped: bool, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(stored(array, version))
    found = numpy_files.read(tmp_path / "a.npy", mapped=mapped)
    assert found.dtype == array.dtype and found.shape == array.shape and np.array_equal(found, array)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    ("change", "more"),
    [
        (lambda first, version: first + stored(ROWS[20:], version), len(stored(ROWS[20:]))),
        (lambda first, version: stored(ROWS[:49], version) + ROWS[49:].tobytes(), 12),
        (lambda first, version: first + b"\n", 1),
    ],
    ids=["two arrays", "a header of fewer rows", "one byte"],
)
def test_more_bytes_than_the_header_says(
    change: object, more: int, version: tuple[int, int], mapped: bool, tmp_path: Path
) -> None:
    assert callable(change)
    (tmp_path / "a.npy").write_bytes(change(stored(ROWS[:20], version), version))
    with pytest.raises(
        InputError, match=rf"a\.npy: has \d+ bytes, {more} more than the array \(\d+, 3\) of float32"
    ) as said:
        numpy_files.read(tmp_path / "a.npy", mapped=mapped)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("mapped", [False, True])
def test_fewer_bytes_than_the_header_says(mapped: bool, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(stored(ROWS)[:-1])
    with pytest.raises(InputError, match=r"a\.npy: not a readable \.npy file of numbers"):
        numpy_files.read(tmp_path / "a.npy", mapped=mapped)
