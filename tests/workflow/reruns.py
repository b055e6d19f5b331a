"""Find out which rules a change runs, for the rerun table: every change is planned in one process.

    python -m tests.workflow.reruns --write

writes the table `attrib_core/runtime/provenance/reruns.csv` anew. Read the difference before you commit it: the
table is a promise to users.
"""

from __future__ import annotations

import ast
import copy
import csv
import importlib.util
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from attrib_core.common import families
from attrib_core.runtime.provenance import bindings, rerun_table
from tests.workflow.rerun_changes import (
    CHANGES,
    ENCODERS,
    EVENTS,
    FAMILIES,
    FAMILY_SECTIONS,
    WITHOUT_CHOICE,
    Changes,
)
from tests.workflow_fixtures import ROOT, TINY

CARRIED = (
    "Snakefile",
    "config.yaml",
    "profiles",
    "rules",
    "workflow_scripts",
    "envs",
    "config",
    "tests/tiny.yaml",
)


def load_list_jobs() -> Callable[..., dict[str, Any]]:
    """Import the function `list_jobs` of `rules/list_jobs.py`, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("list_jobs", ROOT / "rules" / "list_jobs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.list_jobs


def reference() -> dict[str, Any]:
    """Return the config of the table: tests/tiny.yaml with a fusion encoder.

    It also has one more style set, so that a mapper for style sets is allowed, and parts with room for one more set.
    """
    values = yaml.safe_load(TINY.read_text("utf-8"))
    return changed(values, {"encoders": ENCODERS, "exemplars.style_sets": 4, "parts.exemplar_sets": 6})


def changed(values: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Return a copy of a config with some keys changed."""
    result = copy.deepcopy(dict(values))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = result
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = copy.deepcopy(value)
    return result


def next_value(key: str, value: Any) -> Changes:
    """Return another value of a key: from CHANGES, else one that its type suggests."""
    if key in CHANGES:
        return CHANGES[key]
    if isinstance(value, bool):
        return {key: not value}
    if isinstance(value, int):
        return {key: value + 1}
    if isinstance(value, float):
        return {key: value / 2 if value else 0.5}
    raise AssertionError(
        f"{key}: add a change for a value like {value!r} to CHANGES in tests/workflow/rerun_changes.py"
    )


class Project:
    """A copy of the repository that tests may edit, and a folder in which its runs are planned."""

    def __init__(self, folder: Path) -> None:
        self.root, self.work = folder / "project", folder / "work"
        self.work.mkdir(parents=True)
        for name in CARRIED:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / "attrib_core", self.root / "attrib_core", ignore=ignored)
        for weights in (ROOT / "attrib_core").rglob("*.safetensors"):
            (self.root / weights.relative_to(ROOT)).symlink_to(weights)
        for (kind, family), text in FAMILIES.items():
            self.root.joinpath(*families.KINDS[kind].split("."), f"{family}.py").write_text(text, "utf-8")
        self._list_jobs = load_list_jobs()

    def config(self, values: Mapping[str, Any], name: str = "config.yaml") -> Path:
        path = self.work / name
        path.write_text(yaml.safe_dump(dict(values)), "utf-8")
        return path

    def plan(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return all jobs of a config, as `rules/list_jobs.py` lists them."""
        with unchanged_environment():
            return self._list_jobs(self.config(values, "planned.yaml"), folder=self.work, root=self.root)

    @contextmanager
    def edited(self, name: str, text: str) -> Iterator[None]:
        """Replace the text of a file of the project for the duration of a `with` block."""
        path = self.root / name
        before = path.read_bytes()
        path.write_text(text, "utf-8")
        try:
            yield
        finally:
            path.write_bytes(before)


@contextmanager
def unchanged_environment() -> Iterator[None]:
    """Restore the environment: the Snakefile prepends to PYTHONPATH, which must not accumulate here."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def values_compared(job: Mapping[str, Any]) -> set[str]:
    """Return what Snakemake compares of a job's params: the set of values, without their names."""
    return {repr(value) for value in job["params"].values()}


def touched(before: Mapping[str, Any], after: Mapping[str, Any], *, by_name: bool = False) -> set[int]:
    """Return the numbers of the jobs of `after` that differ themselves, if all jobs of `before` are finished.

    `by_name` compares params name by name, which Snakemake does not do.
    """
    finished = {tuple(job["output"]): job for job in before["jobs"]}
    found = set()
    for number, job in enumerate(after["jobs"]):
        old = finished.get(tuple(job["output"]))
        params = (lambda one: one["params"]) if by_name else values_compared
        if old is None or set(old["input"]) != set(job["input"]) or params(old) != params(job):
            found.add(number)
    return found


def closure(plan: Mapping[str, Any], first: set[int]) -> set[int]:
    """Return these jobs and all that use their outputs, directly or not."""
    makers = {path: number for number, job in enumerate(plan["jobs"]) for path in job["output"]}
    found: set[int] = set()
    grown = set(first)
    while grown != found:
        found = set(grown)
        grown |= {
            number
            for number, job in enumerate(plan["jobs"])
            if any(makers.get(path) in found for path in job["input"])
        }
    return found


def names(plan: Mapping[str, Any], jobs: set[int]) -> frozenset[str]:
    return frozenset(plan["jobs"][number]["rule"] for number in jobs)


def outcome(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the rules that a change touches, and the rules that run."""
    first = touched(before, after)
    return names(after, first), names(after, closure(after, first))


def with_every_definition_changed(text: str) -> str:
    """Return the text of a module with every top-level function, class and constant changed."""
    tree = ast.parse(text)
    body: list[ast.stmt] = []
    for node in tree.body:
        body.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body.append(ast.parse("_changed = 0").body[0])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for name in bindings.assigned(node):
                body += ast.parse(f"{name} = {name}").body if name != "__all__" else []
    tree.body = body
    return ast.unparse(ast.fix_missing_locations(tree))


def modules(root: Path = ROOT) -> list[str]:
    """Return the paths of all modules of the package and all scripts of the rules."""
    files = [*(root / "attrib_core").rglob("*.py"), *(root / "workflow_scripts").glob("*.py")]
    return sorted(path.relative_to(root).as_posix() for path in files if path.read_text("utf-8").strip())


def by_key(project: Project, before: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each key of the config with the plan for another value."""
    for key, value in rerun_table.leaves(before["config"]).items():
        if key not in WITHOUT_CHOICE:
            yield key, project.plan(changed(reference(), next_value(key, value)))


def with_module_changed(project: Project, name: str) -> dict[str, Any]:
    """Return the plan after a change of every definition in a module."""
    text = with_every_definition_changed((project.root / name).read_text("utf-8"))
    with project.edited(name, f"{text}\n_changed = 0\n"):
        return project.plan(reference())


def found(project: Project) -> list[rerun_table.Row]:
    """Compute the complete table."""
    before = project.plan(reference())
    rows = [
        rerun_table.Row("event", name, *outcome(before, project.plan(changed(reference(), changes))))
        for name, changes in EVENTS.items()
    ]
    rows += [rerun_table.Row("key", key, *outcome(before, after)) for key, after in by_key(project, before)]
    return rows


def generalised(rows: list[rerun_table.Row]) -> list[rerun_table.Row]:
    """Merge the keys of a family's section into one row with `*`; keys that differ keep their own rows."""
    result = list(rows)
    for section in FAMILY_SECTIONS:
        own = [row for row in rows if row.kind == "key" and row.change.startswith(f"{section}.")]
        common, _ = Counter((row.touches, row.runs) for row in own).most_common(1)[0]
        alike = [row for row in own if (row.touches, row.runs) == common]
        position = result.index(alike[0])
        result = [row for row in result if row not in alike]
        result.insert(position, rerun_table.Row("key", f"{section}.*", *common))
    return result


def main() -> None:
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder, added_families():
        rows = found(Project(Path(folder)))
    rows = generalised(rows)
    with rerun_table.FILE.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(rerun_table.COLUMNS)
        for row in rows:
            writer.writerow([row.kind, row.change, " ".join(sorted(row.touches)), " ".join(sorted(row.runs))])


@contextmanager
def added_families() -> Iterator[None]:
    """Add a source `blank` and a base model `other`, so that `family` itself can be changed."""
    with tempfile.TemporaryDirectory() as name:
        packages = []
        for (kind, family), text in FAMILIES.items():
            folder = Path(name, kind)
            folder.mkdir()
            (folder / f"{family}.py").write_text(text, "utf-8")
            package = importlib.import_module(families.KINDS[kind])
            package.__path__.append(str(folder))
            packages.append((package, str(folder)))
        try:
            yield
        finally:
            for package, folder in packages:
                package.__path__.remove(folder)


if __name__ == "__main__":
    main()
