"""Parquet files: one that is refused is closed again."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.common.errors import InputError
from attrib_core.storage import parquet_files


def descriptors(path: Path) -> int:
    """How often this process has a file open."""
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(link) == str(path) for link in links if link.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc, as on Linux")
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["b"], r"missing columns \['b'\], it has \['a', 'a', 'c'\]"),
        (["a"], "has the column 'a' 2 times, expected it once"),
    ],
)
def test_a_file_that_is_refused_is_closed(columns: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path.resolve() / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, ["a", "a", "c"]), path)
    gc.disable()  # which would close it, too
    try:
        with pytest.raises(InputError, match=message):  # the error keeps the frame that opened the file
            parquet_files.opened(path, columns)
        with pytest.raises(InputError) as caught:
            parquet_files.opened(path, columns)
        assert descriptors(path) == 0 and str(caught.value).startswith(str(path))
        with parquet_files.opened(path, ["c"]):
            assert descriptors(path) == 1
        assert descriptors(path) == 0
    finally:
        gc.enable()
