"""Shared fixtures: one thread, no network, scripts without Snakemake, temporary families."""

from __future__ import annotations

import os

# Before any test module imports numpy or torch.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import importlib  # noqa: E402
import random  # noqa: E402
import runpy  # noqa: E402
import sys  # noqa: E402
import textwrap  # noqa: E402
from collections.abc import Callable, Iterator, Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

from attrib_core.common import families  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Reset global random state, so that no test depends on the tests before it."""
    random.seed(0)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


class Named(list[Any]):
    """Like Snakemake's lists of files and values: by position, by name, and as a mapping."""

    def __init__(self, values: Mapping[str, Any] | list[Any] | str | None = None) -> None:
        named = dict(values) if isinstance(values, Mapping) else {}
        plain = [values] if isinstance(values, str) else values or []
        super().__init__(named.values() if named else plain)
        self._named = named

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_named"][name]
        except KeyError:
            raise AttributeError(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        return self._named.get(name, default)

    def keys(self) -> Any:
        return self._named.keys()

    def items(self) -> Any:
        return self._named.items()


@pytest.fixture
def fake_snakemake(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Build the object `snakemake` that Snakemake defines in a script; its log is `tmp_path/job.log`."""

    def make(
        *,
        rule: str = "rule",
        input: Mapping[str, Any] | None = None,
        output: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        wildcards: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        threads: int = 1,
    ) -> SimpleNamespace:
        return SimpleNamespace(
            rule=rule,
            input=Named(input),
            output=Named(output),
            params=Named(params),
            wildcards=Named(wildcards),
            resources=Named(resources),
            log=Named([str(tmp_path / "job.log")]),
            threads=threads,
        )

    return make


@pytest.fixture
def run_script(fake_snakemake: Callable[..., SimpleNamespace]) -> Callable[..., None]:
    """Run `workflow_scripts/<rule>.py` in this process as a job of that rule."""

    def run(rule: str, **given: Any) -> None:
        script = ROOT / "workflow_scripts" / f"{rule}.py"
        runpy.run_path(str(script), init_globals={"snakemake": fake_snakemake(rule=rule, **given)})

    return run


@pytest.fixture
def add_family(tmp_path: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Add a family for the duration of a test: `add_family("encoders", "mine", source)`."""
    added: list[tuple[Any, str, str]] = []

    def add(kind: str, name: str, source: str) -> None:
        folder = tmp_path / "families" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        package = importlib.import_module(families.KINDS[kind])
        package.__path__.append(str(folder))
        added.append((package, str(folder), f"{families.KINDS[kind]}.{name}"))
        importlib.invalidate_caches()

    yield add
    for package, folder, module in added:
        package.__path__.remove(folder)
        sys.modules.pop(module, None)
        if hasattr(package, module.rsplit(".", 1)[1]):
            delattr(package, module.rsplit(".", 1)[1])
