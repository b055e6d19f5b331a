"""What planning and starting cost, from 100 to 20,000 exemplar sets: Snakemake, and this project's own share.

    python benchmarks/scale.py --sets 100 1000 5000 20000

The real Snakefile, rules, params, fingerprints and records, in a copy of the checkout where two things differ:
a job sleeps `--sleep` seconds and leaves empty tables in place of computing, and the pool's source has any
number of rows (`--pool` for each exemplar set) and no pictures. For each size, in a folder of its own:

- a dry run from nothing,
- the run, whose jobs cost what Snakemake, the start of a process and its imports cost (up to `--most-jobs`),
- a call when all is made, real and dry,
- `python -m attrib_core plan`, and `status` when all is made.

Of Snakemake's calls also the processor's seconds that are this project's own: imports, the config, fingerprints of
all rules (`cover`; no digest of a large file is remembered in the first call), states of source and base, records.
Parts are as large as the config makes them for that size. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
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

from attrib_core import tables

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "Snakefile",
    "config.yaml",
    "attrib_core",
    "config",
    "envs",
    "profiles",
    "rules",
    "workflow_scripts",
)
SOURCE = '''"""Any number of rows without pictures."""

from attrib_core import keys


class Rows:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def state(self, start, stop):
        return keys.digest(start, stop)


def load(*, length: int, seed: int) -> Rows:
    return Rows(length)
'''
LEAVE = """import shutil
from pathlib import Path

empty = Path({empty!r})
for path in map(Path, snakemake.output):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = next((part for part in path.parts if (empty / f"{{part}}.parquet").exists()), "other")
    if path.suffix == ".parquet":
        shutil.copy(empty / f"{{kind}}.parquet", path)
    elif path.name == "base_model.json":
        shutil.copy(empty / path.name, path)
    else:
        path.write_bytes(b"")
"""
JOB = """from attrib_core.jobs import job

with job(snakemake):
    import time

    time.sleep({sleep})
    exec(open({leave!r}).read())
"""
MADE = """# Makes what the jobs of a run leave, in this one process; then `snakemake --touch` notes them as done.
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from attrib_core import records
from attrib_core.config import plain, stated_config
from attrib_core.costs import counts, jobs

house, config = Path(sys.argv[1]), Path("config.yaml")
asked = subprocess.run([sys.executable, house / "rules/ask.py", config], check=True, stdout=subprocess.PIPE)
known = json.loads(asked.stdout)
run = Path(known["run"])
NOW = time.time_ns()  # of all files, so that none is newer than what is made of it
for job in known["jobs"]:
    if job["rule"] == "base_model_recipe":
        continue
    given = SimpleNamespace(
        rule=job["rule"],
        log=[run / "logs" / "x.log"],
        wildcards=job["wildcards"],
        params=job["params"],
        input=job["input"],
        output=job["output"],
    )
    exec((house / "leave.py").read_text("utf-8"), {"snakemake": given})
    for path in given.output:
        os.utime(path, ns=(NOW, NOW))
    records.save(given)
for job in jobs.planned(counts.count(plain(stated_config(config)))):
    for folder, end, text in (("benchmarks", "tsv", "s\\n1.0\\n"), ("logs", "log", "")):
        path = run / folder / f"{job.name}.{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
"""
CLOCK = """# Seconds that this project's own functions take in a call of Snakemake, written when it ends.

import atexit
import functools
import json
import os
import sys
import time

CLOCKED = {}
RUNNING = []


def clocked(module, name):
    inner = getattr(module, name)

    @functools.wraps(inner)
    def outer(*given, **named):
        RUNNING.append(name)
        began = time.process_time()
        try:
            return inner(*given, **named)
        finally:
            RUNNING.pop()
            if not RUNNING:
                CLOCKED[name] = CLOCKED.get(name, 0.0) + time.process_time() - began

    setattr(module, name, outer)


began = time.process_time()
sys.path.insert(0, workflow.basedir)
from attrib_core import config as attrib_config
from attrib_core import device, digests, exemplars, families, fingerprint, pool, records, running, whole

CLOCKED["import"] = time.process_time() - began
for module, name in [
    (attrib_config, "load_config"),
    (fingerprint, "cover"),
    (pool, "source_state"),
    (digests, "of_file"),
    (records, "house_metadata"),
    (records, "keep_coverage"),
    (records, "settle"),
    (records, "without_notes"),
    (running, "check_free"),
    (running, "hold"),
    (whole, "sweep"),
    (device, "visible"),
]:
    clocked(module, name)


def tell_clock():
    if "ATTRIB_CLOCK" in os.environ:
        with open(os.environ["ATTRIB_CLOCK"], "w") as stream:
            json.dump(CLOCKED, stream)


if workflow.is_main_process:
    atexit.register(tell_clock)
"""


TITLES = {
    "dry": "dry run from nothing",
    "run": "the run",
    "again": "a call when all is made",
    "again_dry": "the same, dry",
    "plan": "attrib_core plan",
    "status": "attrib_core status",
}
SCRIPT = re.compile(r'(script:\s+)"\.\./workflow_scripts/\w+\.py"')
SCHEMAS = {
    "models": tables.schema("models"),
    "synthesized": tables.schema("synthesized"),
    "embeddings": tables.embedding_schema(8),
    "other": tables.schema("pool"),
}
"""Of empty tables, by the folder that they stand in."""


@dataclass(frozen=True)
class Call:
    """A process that ended well."""

    seconds: float
    """Of the wall."""
    processor: float
    """Seconds, with all processes that it started."""
    peak_mb: float
    said: str
    ours: dict[str, float] = field(default_factory=dict)
    """Seconds of the processor in functions of this project, by function."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Plan, run and repeat all sizes; prints a table and returns its rows."""
    options = _options(arguments)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        house = copy_with_sleepers(Path(folder, "house"), options.sleep)
        print(
            f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; seconds of the wall, in brackets"
        )
        print("of the processor; MB: largest memory of Snakemake")
        for sets in options.sets:
            rows.append(row := _measure(house, Path(folder, f"{sets}-sets"), sets, options))
            print(_told(row), flush=True)
        print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, nargs="+", default=[100, 1000, 5000, 20000], help="exemplar sets")
    parser.add_argument(
        "--pool", type=int, default=50, help="pool pictures for each set; default: %(default)s"
    )
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


def copy_with_sleepers(house: Path, sleep: float) -> Path:
    """A copy of the checkout whose rules start a sleeper in place of their scripts."""
    house.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, house / name)
    empty = house / "empty"
    for name, schema in SCHEMAS.items():
        with tables.writer(empty / f"{name}.parquet", schema):
            pass
    described = {"path": "none", "fingerprint": "none", "resolution": 64, "prediction_type": "none"}
    tables.write_json(empty / "base_model.json", described | {"held_out": None})
    (house / "leave.py").write_text(LEAVE.format(empty=str(empty)), "utf-8")
    (house / "sleeper.py").write_text(JOB.format(sleep=sleep, leave=str(house / "leave.py")), "utf-8")
    (house / "attrib_core/sources/rows.py").write_text(SOURCE, "utf-8")
    (house / "made.py").write_text(MADE, "utf-8")
    (house / "rules/clock.smk").write_text(CLOCK, "utf-8")
    replaced = 0
    for rules in (house / "rules").glob("*.smk"):
        # `code` is still given the true scripts, so that fingerprints are the true ones
        text, number = SCRIPT.subn(r'\1"../sleeper.py"', rules.read_text("utf-8"))
        rules.write_text(text, "utf-8")
        replaced += number
    first, snakefile = 'include: "rules/common.smk"', house / "Snakefile"
    text = snakefile.read_text("utf-8")
    if not replaced or first not in text:
        raise SystemExit("the Snakefile or its rules have a form that this benchmark does not know")
    snakefile.write_text(text.replace(first, f'include: "rules/clock.smk"\n{first}'), "utf-8")
    return house


def _measure(house: Path, folder: Path, sets: int, options: argparse.Namespace) -> dict[str, Any]:
    folder.mkdir()
    values = yaml.safe_load(options.config.read_text("utf-8")) if options.config else {}
    images = sets * options.pool
    values["run"] = "scale"
    values["pool"] = {"images": images, "source": {"family": "rows", "length": images}}
    counts = {"object_sets": sets - sets // 4, "style_sets": sets // 4}
    values["exemplars"] = values.get("exemplars", {}) | counts
    (folder / "config.yaml").write_text(yaml.safe_dump(values), "utf-8")

    def call(*arguments: str) -> Call:
        return _snakemake(house, folder, "--cores", str(options.cores), *arguments)

    planned = call("--dry-run", "--quiet", "rules")
    found = re.search(r"^total +(\d+)$", planned.said, re.MULTILINE)
    jobs = int(found[1]) - 1 if found else 0  # the rule `all` does nothing
    row: dict[str, Any] = {"sets": sets, "pool": images, "jobs": jobs, "dry": planned}
    row["plan"] = _ours(house, folder, "plan", "--config", "config.yaml")
    if jobs <= options.most_jobs:
        row["run"] = call("--quiet", "all")
    else:
        _ours(house, folder, str(house / "made.py"), str(house))
        call("--touch", "--forceall", "--quiet", "all")
    row["again"], row["again_dry"] = call(), call("--dry-run")
    for one in (row["again"], row["again_dry"]):
        if "Nothing to be done" not in one.said:
            raise SystemExit(f"a second call found something to do:\n{one.said[-3000:]}")
    row["status"] = _ours(house, folder, "status", "results/scale", "--config", "config.yaml")
    return row


def _told(row: Mapping[str, Any]) -> str:
    """A row's figures as lines."""

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


def _snakemake(house: Path, folder: Path, *arguments: str) -> Call:
    where = ["--snakefile", str(house / "Snakefile"), "--directory", str(folder)]
    command = [sys.executable, "-m", "snakemake", *where, "--configfile", "config.yaml", *arguments]
    clock = folder / "clock.json"
    called = _timed(command, folder, {"ATTRIB_CLOCK": str(clock), "ATTRIB_DIGESTS": str(folder / "digests")})
    return replace(called, ours=json.loads(clock.read_text("utf-8")))


def _ours(house: Path, folder: Path, *arguments: str) -> Call:
    """A script, or a command of `attrib_core`, with the copy's library."""
    command = [sys.executable, *([] if arguments[0].endswith(".py") else ["-m", "attrib_core"]), *arguments]
    return _timed(command, folder, {"PYTHONPATH": str(house)})


def _timed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Call:
    """Run a process; its memory is that of the largest process, its processor time that of all."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=subprocess.STDOUT, env=os.environ | environment
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text[-3000:]}")
    return Call(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, text)


if __name__ == "__main__":
    main()
