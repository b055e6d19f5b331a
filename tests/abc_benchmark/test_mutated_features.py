"""Damaged files of features give what torch, NumPy and pyarrow read of them, or an error; never other numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrib_core.abc_benchmark import feature_files
from attrib_core.common.errors import InputError
from tests.storage.mutation_fixtures import DAMAGE, ZIPPED, Change

ROWS = torch.arange(40.0).reshape(10, 4) / 8
QUICK = settings(max_examples=300, derandomize=True, deadline=None)
FULL = settings(max_examples=4000, derandomize=True, deadline=None)


def saved(value: Any, *, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


NAMES = [f"{number}.jpg" for number in range(10)]
PTH = [
    saved({"other": ROWS + 100, "feats": ROWS, "more": ROWS - 100, "paths": NAMES}),
    saved({"feats": ROWS.half(), "paths": None}),
    saved({"feats": torch.cat([ROWS - 7, ROWS])[10:].double()}),
    saved({"feats": torch.stack([ROWS, ROWS + 1], 1).reshape(20, 4)[::2], "paths": NAMES}),
    saved({"feats": ROWS, "paths": NAMES}, zipped=False),
]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ARRAY = ROWS.numpy()
NPY = [npy(ARRAY), npy(np.asfortranarray(ARRAY)), npy(ARRAY.astype(">f8")), npy(ARRAY.astype("<f2"))]


def parquet(kind: pa.DataType, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(
        pa.table({"image_id": NAMES, "embedding": pa.array(ARRAY.tolist(), kind)}), stream, **options
    )
    return stream.getvalue()


PARQUET = [
    parquet(pa.list_(pa.float32(), 4)),
    parquet(pa.list_(pa.float64()), row_group_size=3, compression="zstd"),
    parquet(pa.list_(pa.float32(), 4), use_dictionary=False, compression="none"),
]


def by_torch(path: Path) -> np.ndarray:
    found: np.ndarray = torch.load(path, map_location="cpu", weights_only=True)["feats"].float().numpy()
    return found


def by_numpy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False).astype(np.float32)


def by_pyarrow(path: Path) -> np.ndarray:
    column = pq.ParquetFile(path).read(columns=["image_id", "embedding"]).column("embedding")
    rows = [[np.nan if number is None else number for number in row or [None]] for row in column.to_pylist()]
    return np.array(rows, np.float32)


def check(path: Path, content: bytes, expected: Callable[[Path], np.ndarray]) -> bool:
    """Compare a pool in a file with what a library reads; return whether it was read."""
    path.write_bytes(content)
    try:
        pool = feature_files.open_pool(path)
        found = np.concatenate([block.vectors for block in pool.blocks(3)])
    except InputError as error:
        line = str(error)
        assert "\n" not in line and "\x1b" not in line and str(path) in line, line
        assert not any(advice in line for advice in ("weights_only", "allow_pickle", "trust")), line
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(found, expected(path), equal_nan=True)
    return True


@pytest.mark.parametrize(
    ("suffix", "contents", "expected"),
    [(".pth", PTH, by_torch), (".npy", NPY, by_numpy), (".parquet", PARQUET, by_pyarrow)],
)
@pytest.mark.parametrize("times", [QUICK, pytest.param(FULL, marks=pytest.mark.slow)])
def test_a_damaged_pool_gives_no_other_numbers(
    suffix: str, contents: list[bytes], expected: Callable[[Path], np.ndarray], times: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"pool{suffix}"
    assert all(check(path, content, expected) for content in contents)
    read = []

    @times
    @given(st.sampled_from(contents), DAMAGE)
    def some(content: bytes, change: Change) -> None:
        read.append(check(path, change(content), expected))

    some()
    assert 0 < sum(read) < len(read)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.sampled_from(PTH[:4]), ZIPPED)
def test_an_archive_that_was_zipped_again_has_its_numbers(content: bytes, change: Change) -> None:
    with TemporaryDirectory() as folder:
        assert check(Path(folder) / "pool.pth", change(content), by_torch)
