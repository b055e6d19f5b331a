"""Measure planning and start-up from 100 to 20,000 exemplar sets: Snakemake's and this project's own share.

    python benchmarks/scale.py --sets 100 1000 5000 20000

The real Snakefile, rules, params, fingerprints and records, in a copy of the checkout with two differences: a job
sleeps `--sleep` seconds and writes empty tables instead of computing, and the pool's source has any number of rows
(`--pool` for each exemplar set) and no images. For each size, in a separate folder:

- a dry run from nothing,
- the run, whose jobs cost what Snakemake, the start of a process and its imports cost (up to `--most-jobs`),
- a call when everything is done, real and dry,
- `python -m attrib_core plan`, and `status` when everything is done.

For Snakemake's calls also the processor seconds of this project's own code: imports, the config, fingerprints of all
rules (`cover`; no digest of a large file is cached in the first call), states of source and base model, records.
Parts have the default size for the size of the run. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.sleepers import copy_with_sleepers

TITLES = {
    "dry": "dry run from nothing",
    "run": "the run",
    "again": "a call when all is done",
    "again_dry": "the same, dry",
    "plan": "attrib_core plan",
    "status": "attrib_core status",
}


@dataclass(frozen=True)
class Call:
    """The measurements of a successful process."""

    seconds: float
    """Of the wall."""
    processor: float
    """Seconds, with all processes that it started."""
    peak_mb: float
    output: str
    ours: dict[str, float] = field(default_factory=dict)
    """Seconds of the processor in functions of this project, by function."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Plan, run and repeat all sizes; prints a table and returns its rows."""
    options = _options(arguments)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkout = copy_with_sleepers(Path(folder, "checkout"), options.sleep)
        print(
            f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; seconds of the wall, in brackets"
        )
        print("of the processor; MB: largest memory of Snakemake")
        for sets in options.sets:
            rows.append(row := _measure(checkout, Path(folder, f"{sets}-sets"), sets, options))
            print(_format(row), flush=True)
        print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, nargs="+", default=[100, 1000, 5000, 20000], help="exemplar sets")
    parser.add_argument("--pool", type=int, default=50, help="pool images for each set; default: %(default)s")
    parser.add_argument(
        "--sleep", type=float, default=0.0, help="seconds that a job sleeps; default: %(default)s"
    )
    parser.add_argument("--cores", type=int, default=2, help="jobs at a time; default: %(default)s")
    parser.add_argument(
        "--most-jobs",
        type=int,
        default=500,
        help="of a larger run one process makes what jobs leave, noted by --touch; default: %(default)s",
    )
    parser.add_argument("--config", type=Path, help="config whose other keys are taken; default: the demo's")
    parser.add_argument("--folder", help="where temporary folders are made")
    return parser.parse_args(arguments)


def _measure(checkout: Path, folder: Path, sets: int, options: argparse.Namespace) -> dict[str, Any]:
    folder.mkdir()
    values = yaml.safe_load(options.config.read_text("utf-8")) if options.config else {}
    images = sets * options.pool
    values["run"] = "scale"
    values["pool"] = {"images": images, "source": {"family": "rows", "length": images}}
    counts = {"object_sets": sets - sets // 4, "style_sets": sets // 4}
    values["exemplars"] = values.get("exemplars", {}) | counts
    (folder / "config.yaml").write_text(yaml.safe_dump(values), "utf-8")

    def call(*arguments: str) -> Call:
        return _snakemake(checkout, folder, "--cores", str(options.cores), *arguments)

    planned = call("--dry-run", "--quiet", "rules")
    found = re.search(r"^total +(\d+)$", planned.output, re.MULTILINE)
    jobs = int(found[1]) - 1 if found else 0  # the rule `all` does nothing
    row: dict[str, Any] = {"sets": sets, "pool": images, "jobs": jobs, "dry": planned}
    row["plan"] = _ours(checkout, folder, "plan", "--config", "config.yaml")
    if jobs <= options.most_jobs:
        row["run"] = call("--quiet", "all")
    else:
        _ours(checkout, folder, str(checkout / "fake_run.py"), str(checkout))
        call("--touch", "--forceall", "--quiet", "all")
    row["again"], row["again_dry"] = call(), call("--dry-run")
    for one in (row["again"], row["again_dry"]):
        if "Nothing to be done" not in one.output:
            raise SystemExit(f"a second call found something to do:\n{one.output[-3000:]}")
    row["status"] = _ours(checkout, folder, "status", "results/scale", "--config", "config.yaml")
    return row


def _format(row: Mapping[str, Any]) -> str:
    """Format the figures of a row as lines."""

    def seconds(call: Call) -> str:
        return f"{call.seconds:.1f} s [{call.processor:.1f}], {call.peak_mb:.0f} MB"

    def ours(call: Call) -> str:
        parts = ", ".join(f"{name} {took:.2f}" for name, took in sorted(call.ours.items()) if took >= 0.005)
        return f"{sum(call.ours.values()):.2f} s of it ours: {parts}"

    lines = [f"{row['sets']:,} sets, pool of {row['pool']:,}: {row['jobs']:,} jobs"]
    for name, title in TITLES.items():
        if name in row:
            lines.append(f"  {title}: {seconds(row[name])}")
            if row[name].ours:
                lines.append(f"    {ours(row[name])}")
    if "run" in row:
        lines.append(f"  a job: {1000 * row['run'].processor / row['jobs']:.0f} ms of the processor")
    return "\n".join(lines)


def _snakemake(checkout: Path, folder: Path, *arguments: str) -> Call:
    where = ["--snakefile", str(checkout / "Snakefile"), "--directory", str(folder)]
    command = [sys.executable, "-m", "snakemake", *where, "--configfile", "config.yaml", *arguments]
    clock = folder / "clock.json"
    called = _timed(command, folder, {"ATTRIB_CLOCK": str(clock), "ATTRIB_DIGESTS": str(folder / "digests")})
    return replace(called, ours=json.loads(clock.read_text("utf-8")))


def _ours(checkout: Path, folder: Path, *arguments: str) -> Call:
    """Run a script, or a command of `attrib_core`, with the library of the copy."""
    command = [sys.executable, *([] if arguments[0].endswith(".py") else ["-m", "attrib_core"]), *arguments]
    return _timed(command, folder, {"PYTHONPATH": str(checkout)})


def _timed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Call:
    """Run a process; its memory is that of the largest process, its processor time that of all."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text[-3000:]}")
    return Call(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, text)


if __name__ == "__main__":
    main()
