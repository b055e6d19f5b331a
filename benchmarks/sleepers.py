"""Make a copy of the checkout whose jobs sleep and write empty tables, to measure everything around the jobs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from attrib_core.storage import tables

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
SOURCE = '''"""Any number of rows without images."""

from attrib_core.common import hashing


class Rows:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def state(self, start, stop):
        return hashing.digest(start, stop)


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
JOB = """from attrib_core.runtime.job import job

with job(snakemake):
    import time

    time.sleep({sleep})
    exec(open({leave!r}).read())
"""
FAKE_RUN = """# Writes the outputs of all jobs of a run in one process; then `snakemake --touch` marks them as done.
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from attrib_core.config.load import plain, load_config_without_source
from attrib_core.config.planning import counts, expected_jobs
from attrib_core.runtime import job_records

checkout, config = Path(sys.argv[1]), Path("config.yaml")
listed = subprocess.run([sys.executable, checkout / "rules/list_jobs.py", config], check=True, stdout=subprocess.PIPE)
known = json.loads(listed.stdout)
run = Path(known["run"])
NOW = time.time_ns()  # for all files, so that no input is newer than its output
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
    exec((checkout / "leave.py").read_text("utf-8"), {"snakemake": given})
    for path in given.output:
        os.utime(path, ns=(NOW, NOW))
    job_records.save(given)
for job in expected_jobs.jobs(counts.count(plain(load_config_without_source(config)))):
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
from attrib_core.config import load
from attrib_core.data import pool
from attrib_core.runtime import devices, job_records, run_lock, snakemake_metadata
from attrib_core.runtime.provenance import fingerprint
from attrib_core.storage import atomic, digests

CLOCKED["import"] = time.process_time() - began
for module, name in [
    (load, "load_config"),
    (fingerprint, "cover"),
    (pool, "source_state"),
    (digests, "of_file"),
    (snakemake_metadata, "keep_in_results"),
    (job_records, "save_coverage"),
    (snakemake_metadata, "restore_times"),
    (snakemake_metadata, "count_without_metadata"),
    (run_lock, "check_free"),
    (run_lock, "hold"),
    (atomic, "sweep"),
    (devices, "visible"),
]:
    clocked(module, name)


def tell_clock():
    if "ATTRIB_CLOCK" in os.environ:
        with open(os.environ["ATTRIB_CLOCK"], "w") as stream:
            json.dump(CLOCKED, stream)


if workflow.is_main_process:
    atexit.register(tell_clock)
"""
SCRIPT = re.compile(r'(script:\s+)"\.\./workflow_scripts/\w+\.py"')
SCHEMAS = {
    "models": tables.schema("models"),
    "synthesized": tables.schema("synthesized"),
    "embeddings": tables.embedding_schema(8),
    "other": tables.schema("pool"),
}
"""Schemas of the empty tables, by folder."""


def copy_with_sleepers(checkout: Path, sleep: float) -> Path:
    """Copy the project to `checkout`, with rules that run a sleeping job instead of their scripts."""
    checkout.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, checkout / name)
    empty = checkout / "empty"
    for name, schema in SCHEMAS.items():
        with tables.writer(empty / f"{name}.parquet", schema):
            pass
    described = {"path": "none", "fingerprint": "none", "resolution": 64, "prediction_type": "none"}
    tables.write_json(empty / "base_model.json", described | {"held_out": None})
    (checkout / "leave.py").write_text(LEAVE.format(empty=str(empty)), "utf-8")
    (checkout / "sleeper.py").write_text(JOB.format(sleep=sleep, leave=str(checkout / "leave.py")), "utf-8")
    (checkout / "attrib_core/data/sources/rows.py").write_text(SOURCE, "utf-8")
    (checkout / "fake_run.py").write_text(FAKE_RUN, "utf-8")
    (checkout / "rules/clock.smk").write_text(CLOCK, "utf-8")
    replaced = 0
    for rules in (checkout / "rules").glob("*.smk"):
        # `fingerprint` is still given the true scripts, so that fingerprints are the true ones
        text, number = SCRIPT.subn(r'\1"../sleeper.py"', rules.read_text("utf-8"))
        rules.write_text(text, "utf-8")
        replaced += number
    first, snakefile = 'include: "rules/settings.smk"', checkout / "Snakefile"
    text = snakefile.read_text("utf-8")
    if not replaced or first not in text:
        raise SystemExit("the Snakefile or its rules are not as this benchmark expects")
    snakefile.write_text(text.replace(first, f'include: "rules/clock.smk"\n{first}'), "utf-8")
    return checkout
