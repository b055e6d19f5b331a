"""Test cases to fit calibrators on and to evaluate them on, and `abc calibrate` on their files."""

from __future__ import annotations

from pathlib import Path

from attrib_core.cli.main import main
from tests.abc_benchmark.abc_fixtures import AbcCase, abc_case

SIZES = [1, 1, 3, 5, 2, 1, 4]
ROWS, DIM = 900, 24


def cases() -> tuple[AbcCase, AbcCase]:
    """Return test cases to fit on and to evaluate on, with the same pool."""
    fitted, test = (abc_case(seed, rows=ROWS, dim=DIM, sizes=SIZES, each=3, signal=0.6) for seed in (1, 2))
    test.pool = fitted.pool
    return fitted, test


def write_cases(folder: Path) -> tuple[AbcCase, AbcCase, list[str]]:
    """Write the cases; return them and the options that name their files."""
    fitted, test = cases()
    first, second = fitted.write(folder / "clip", name="val_x"), test.write(folder / "clip", name="test_x")
    files = ["--pool", str(first["pool"]), "--fit", str(first["test"]), "--test", str(second["test"])]
    return fitted, test, files


def run_calibrate(files: list[str], out: Path, *options: str) -> int:
    return main(["abc", "calibrate", *files, "--out", str(out), *options])
