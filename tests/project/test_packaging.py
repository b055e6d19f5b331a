"""What an installed copy needs: declared dependencies, shipped data, a lock file that fits; light stages stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HEAVY = ("torch", "torchvision", "diffusers", "transformers", "timm", "open_clip", "faiss")
LIGHT_MODULES = (
    "attrib_core.data.pool",
    "attrib_core.data.exemplars.plan",
    "attrib_core.data.prompts",
    "attrib_core.attribution.ranking.rank",
    "attrib_core.attribution.metrics.measure",
    "attrib_core.report",
    "attrib_core.config.load",
    "attrib_core.features.embedding.encoder_protocol",
    "attrib_core.features.heads.heads",
    "attrib_core.data.images",
    "attrib_core.runtime.job",
    "attrib_core.runtime.provenance.fingerprint",
    "attrib_core.features.encoders.diffusion",
    "attrib_core.features.encoders.fusion",
    "attrib_core.features.encoders.open_clip",
    "attrib_core.features.encoders.palette",
    "attrib_core.features.encoders.pixel",
    "attrib_core.features.encoders.timm.encoder",
    "attrib_core.features.encoders.torchscript",
    "attrib_core.features.encoders.transformers",
)


def requirements(*extras: str) -> list[Requirement]:
    texts = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        texts += PROJECT["project"]["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """Top-level names of all absolute imports below a folder, with the file."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name.split(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module.split(".")[0], path


def undeclared(folder: str, *extras: str) -> dict[str, str]:
    declared = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    distributions = metadata.packages_distributions()
    here = {path.stem for path in (ROOT / folder).rglob("*.py")}
    missing = {}
    for name, path in imported(ROOT / folder):
        if name in sys.stdlib_module_names or name in here | {"attrib_core", "tests", "snakemake"}:
            continue
        owners = {canonicalize_name(owner) for owner in distributions.get(name, [])}
        if not owners & declared:
            missing[name] = str(path.relative_to(ROOT))
    return missing


@pytest.mark.parametrize("folder", ["attrib_core", "workflow_scripts"])
def test_every_import_is_a_declared_dependency(folder: str) -> None:
    assert undeclared(folder, "cpu") == {}


def test_every_import_of_the_tests_is_declared() -> None:
    assert undeclared("tests", "cpu", "dev") == {}


def test_data_files_are_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["attrib_core"]
    shipped = {path for pattern in patterns for path in (ROOT / "attrib_core").glob(pattern)}
    files = {
        path
        for path in (ROOT / "attrib_core").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    left_out = {str(path.relative_to(ROOT)) for path in files - shipped if path.suffix != ".py"}
    assert left_out == set()


def test_the_lock_file_fits_the_declared_ranges() -> None:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) and not pin.url for pin in pins)
    for requirement in requirements(*PROJECT["project"]["optional-dependencies"]):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not in requirements.lock; run `make lock`"
        assert requirement.specifier.contains(locked[name]), f"{name} {locked[name]} is outside {requirement}"


@pytest.mark.parametrize(
    ("name", "extras"), [("cpu", ["cpu"]), ("gpu", ["gpu"]), ("dev", ["cpu", "slurm", "dev"])]
)
def test_the_conda_environments_have_what_is_declared_as_it_is_locked(name: str, extras: list[str]) -> None:
    """And no path: Snakemake copies the file, and from there a path leads elsewhere."""
    content = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text("utf-8"))
    lock = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lock if line[:1] != "#"}
    expected = {
        f"{requirement.name}=={pins[canonicalize_name(requirement.name)]}"
        for requirement in requirements(*extras)
    }
    [installed] = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    assert installed == sorted(expected, key=str.lower)


def test_the_extras_for_faiss_exclude_each_other() -> None:
    base = {canonicalize_name(requirement.name) for requirement in requirements()}
    assert not base & {"faiss-cpu", "faiss-gpu"}
    assert PROJECT["tool"]["uv"]["conflicts"] == [[{"extra": "cpu"}, {"extra": "gpu"}]]


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    """A job pays for its imports each time: seconds for torch, more for the model libraries."""
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_every_rule_file_is_included_and_every_script_used() -> None:
    snakefile = (ROOT / "Snakefile").read_text("utf-8")
    rules = {path.name: path.read_text("utf-8") for path in (ROOT / "rules").glob("*.smk")}
    assert set(re.findall(r'include: "rules/(\w+\.smk)"', snakefile)) == set(rules)
    used = {
        name for text in rules.values() for name in re.findall(r'"\.\./workflow_scripts/(\w+\.py)"', text)
    }
    assert used == {path.name for path in (ROOT / "workflow_scripts").glob("*.py")}
