"""Pool features in every kind of file: read in blocks, and what cannot be read."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.abc_benchmark import evaluate, feature_files
from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from tests.abc_benchmark.abc_fixtures import SMALL_CASE, abc_case, evaluate_error, memory_case
from tests.attribution.ranking_fixtures import write_parts
from tests.files_fixtures import NeedsCode


@pytest.mark.parametrize(
    "kind",
    [
        "npy",
        "fortran",
        "npy64",
        "parquet",
        "parts",
        "half",
        "double",
        "old",
        "transposed",
        "bfloat16",
        "view",
    ],
)
def test_a_pool_is_read_equally_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    case = abc_case(6, rows=50, dim=8)
    case.pool = case.pool.astype(np.float16).astype(np.float32)
    if kind == "bfloat16":
        case.pool = torch.from_numpy(case.pool).bfloat16().float().numpy()
    tensor, names = torch.from_numpy(case.pool), [f"{i}.jpg" for i in range(50)]
    path = tmp_path / "pool.pth"
    if kind in ("npy", "fortran", "npy64"):
        path = tmp_path / "pool.npy"
        saved = {
            "npy": case.pool,
            "fortran": np.asfortranarray(case.pool),
            "npy64": case.pool.astype(np.float64),
        }
        np.save(path, saved[kind])
    elif kind == "parquet":
        path = write_parts(tmp_path, names, case.pool, 99)[0]
    elif kind == "parts":
        path = tmp_path / "parts"
        write_parts(path, names, case.pool, 20)
    elif kind == "old":
        torch.save({"feats": tensor, "paths": names}, path, _use_new_zipfile_serialization=False)
    else:
        stored = {
            "half": tensor.half(), "double": tensor.double(), "transposed": tensor.T.contiguous().T,
            "bfloat16": tensor.bfloat16(), "view": torch.cat([tensor[:3], tensor])[3:],
        }  # fmt: skip
        torch.save({"junk": torch.ones(7), "feats": stored[kind], "paths": names}, path)
    pool = feature_files.open_pool(path)
    assert (pool.rows, pool.dim) == (50, 8)
    for step in (7, 50, 1000):
        blocks = list(pool.blocks(step))
        assert np.array_equal(np.concatenate([block.vectors for block in blocks]), case.pool)
        assert all(block.vectors.dtype == np.float32 for block in blocks)
        starts = np.cumsum([0] + [len(block.vectors) for block in blocks])[:-1]
        assert [block.start for block in blocks] == starts.tolist()
        if "npy" not in path.name:
            assert [name for block in blocks for name in block.names or []] == names


@pytest.mark.parametrize("kind", ["pth", "npy", "parquet"])
def test_a_pool_is_streamed(kind: str, tmp_path: Path) -> None:
    """Ranking against a file of 32 MB, read 1 MB at a time, needs little memory in Python and NumPy."""
    rows, dim = 32768, 256
    vectors = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
    path = tmp_path / f"pool.{kind}"
    if kind == "pth":
        torch.save({"feats": torch.from_numpy(vectors)}, path)
    elif kind == "npy":
        np.save(path, vectors)
    else:
        with tables.writer(path, tables.embedding_schema(dim)) as sink:
            for start in range(0, rows, 1024):
                names = [str(i) for i in range(start, start + 1024)]
                sink.write(tables.embedding_table(names, vectors[start : start + 1024]))
    case = abc_case(1, rows=1, dim=dim)
    _, test = memory_case(case)
    del vectors
    pool = feature_files.open_pool(path)
    tracemalloc.start()
    evaluate.count(pool, test, test.queries[0], pool_block=1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * 2**20  # three copies of a block, partly in float64, and similarities


def test_memory_maps_are_released(tmp_path: Path) -> None:
    """Mapped pages count as memory of the process, so only a block or two may stay mapped."""
    code = """
import sys
from pathlib import Path
from attrib_core.abc_benchmark import feature_files
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
pool = feature_files.open_pool(Path(sys.argv[1]))
before = peak()
sum(float(block.vectors.sum()) for block in pool.blocks(1024))
print(peak() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs the peak memory of a process, as Linux reports it")
    path = tmp_path / "pool.pth"
    torch.save({"feats": torch.ones(65536, 256)}, path)  # 64 MB, a block 1 MB
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 1024  # kilobytes


def save_code(path: Path) -> None:
    torch.save({"feats": torch.ones(3, 6), "paths": [NeedsCode()]}, path)


def save_old_code(path: Path) -> None:
    torch.save(
        {"feats": torch.ones(3, 6), "paths": [NeedsCode()]}, path, _use_new_zipfile_serialization=False
    )


def save_cut(path: Path) -> None:
    torch.save({"feats": torch.ones(300, 6)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def one_bad_row(value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        feats = torch.ones(20, 6)
        feats[17] = 0 if value == 0 else feats[17]
        feats[17, 3] = value
        torch.save({"feats": feats, "paths": [f"{i}.jpg" for i in range(20)]}, path)

    return write


POOLS: list[tuple[Callable[[Path], Any], list[str]]] = [
    (save_code, ["needs code to unpickle", "print", "refused"]),
    (save_old_code, ["needs code to unpickle", "print", "refused"]),
    (save_cut, ["not a readable file"]),
    (lambda path: path.write_bytes(b"hello"), ["is a text; expected a file of torch.save"]),
    (lambda path: path.write_bytes(b""), ["is an empty file; expected a file of torch.save"]),
    (lambda path: path.mkdir(), ["no Parquet files in this folder"]),
    (lambda path: None, ["no such file"]),
    (lambda path: torch.save(torch.ones(3, 6), path), ["a tensor (3, 6)", "'feats' and 'paths'"]),
    (lambda path: torch.save({"features": 1}, path), ["'features'", "'feats' and 'paths'"]),
    (
        lambda path: torch.save({"feats": torch.ones(3, 6), "paths": ["a"]}, path),
        ["paths", "1 entries", "3 rows"],
    ),
    (
        lambda path: torch.save({"feats": torch.ones(3, 6), "paths": [1, 2, 3]}, path),
        ["paths", "list of strings"],
    ),
    (lambda path: torch.save({"feats": torch.ones(0, 6), "paths": []}, path), ["feats", "no rows"]),
    (lambda path: torch.save({"feats": [1.0, 2.0]}, path), ["feats", "a list of 2", "(rows, dim)"]),
    (one_bad_row(np.nan), ["feats", "row 17 ('17.jpg')", "NaN", "--bad-rows last"]),
    (one_bad_row(np.inf), ["feats", "row 17 ('17.jpg')", "infinite"]),
    (one_bad_row(0), ["feats", "row 17 ('17.jpg')", "only zeros"]),
]


@pytest.mark.parametrize(("write", "words"), POOLS)
def test_unreadable_pth_pools_are_refused(
    write: Callable[[Path], Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = SMALL_CASE.write(tmp_path) | {"pool": tmp_path / "other" / "pool.pth"}
    paths["pool"].parent.mkdir()
    write(paths["pool"])
    line = evaluate_error(paths, capsys)
    assert all(word in line for word in [str(paths["pool"]), *words]), line


def test_unreadable_npy_and_parquet_pools_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for saved, words in [
        (np.ones(3), ["(3,)", "(rows, dim)"]),
        (np.ones((3, 2), int), ["int64", "floats"]),
        (np.array([{}]), ["not a readable .npy"]),
        (np.ones((0, 4), np.float32), ["no rows"]),
    ]:
        np.save(path, saved)
        with pytest.raises(InputError) as error:
            feature_files.open_pool(path)
        assert all(word in str(error.value) for word in [str(path), *words]), error.value
    for name, words in [
        ("none.npy", ["no such"]),
        ("none.parquet", ["no such"]),
        ("pool.csv", ["'.csv'", ".pth"]),
    ]:
        with pytest.raises(InputError) as error:
            feature_files.open_pool(tmp_path / name)
        assert all(word in str(error.value) for word in [name, *words])
