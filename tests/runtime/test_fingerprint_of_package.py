"""Fingerprints of the real package: they cover what runs, parse each file once, and survive a copy."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from attrib_core.runtime.provenance import definitions
from attrib_core.runtime.provenance import fingerprint as fp

ROOT = Path(__file__).parents[2]


def _module_parts(path: Path) -> tuple[str, ...]:
    """Return the parts of the module name of a file; `__init__.py` is its package."""
    return path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts


def run_and_watch(function: Callable[[], object]) -> set[str]:
    """Return the top-level definitions of attrib_core that a call executes: "attrib_core.common.hashing.seed"."""
    seen: set[tuple[str, str]] = set()

    def watch(frame: object, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code  # type: ignore[attr-defined]
            seen.add((code.co_filename, code.co_qualname))

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    package = ROOT / "attrib_core"
    return {
        ".".join([*_module_parts(Path(file).relative_to(ROOT)), name.split(".")[0]])
        for file, name in seen
        if Path(file).is_relative_to(package) and not name.startswith("<")
    }


def test_what_runs_was_reached(tmp_path):
    """No definition runs that the walk over names did not reach."""
    script = tmp_path / "script.py"
    script.write_text(
        "from attrib_core.common import hashing\n"
        "from attrib_core.data.drawing import render\n"
        "from attrib_core.storage import tables\n"
        "def main(folder):\n"
        "    rng = hashing.generator(1, 'a')\n"
        "    for treatment in (None, list(render.MEDIA)[0], list(render.STYLES)[-1]):\n"
        "        render.image(render.objects()[0].codepoint, 'beach', 32, rng, treatment)\n"
        "    rows = [{'image_id': hashing.content_key('a'), 'reason': render.caption('apple', 'beach')}]\n"
        "    tables.write(folder / 't.parquet', 'rejects', rows)\n"
        "    tables.read_parts([folder / 't.parquet'], 'rejects', ['reason'])\n"
        "    list(tables.iterate([folder / 't.parquet'], ['reason'], 1))\n"
    )
    scope: dict[str, Callable[[Path], object]] = {}
    exec(compile(script.read_text(), str(script), "exec"), scope)
    executed = run_and_watch(lambda: scope["main"](tmp_path))
    assert len(executed) > 15
    assert executed - set(fp.cover(script).code) == set()


def test_all_scripts_together_parse_each_file_once(monkeypatch):
    scripts = sorted((ROOT / "workflow_scripts").glob("*.py"))
    parsed, real = Counter(), definitions.ast.parse

    def counted(source, filename="<unknown>", *given, **options):
        parsed[filename] += 1
        return real(source, filename, *given, **options)

    monkeypatch.setattr(definitions.ast, "parse", counted)
    definitions._parse.cache_clear()
    prints = {fp.cover(script).digest for script in scripts}
    assert len(prints) == len(scripts) > 10
    # a second time for a module that is also parsed as a script
    assert len(parsed) > 100 and sum(parsed.values()) < 1.1 * len(parsed) and max(parsed.values()) <= 2


def test_copying_the_library_keeps_the_fingerprint(tmp_path):
    """A fresh checkout, with other modification times, runs no job again."""
    script = tmp_path / "script.py"
    script.write_text("from attrib_core.storage import tables\ntables.read('x', 'pool')\n")
    shutil.copytree(
        ROOT / "attrib_core",
        tmp_path / "attrib_core",
        ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
    )
    assert fp.cover(script, root=tmp_path).digest == fp.cover(script).digest


@pytest.mark.parametrize(
    ("script", "tables"),
    [("customize_part", {"models"}), ("prior", {"exemplars", "prior"}), ("sample_part", {"synthesized"})],
)
def test_a_script_covers_only_the_schemas_of_its_own_tables(script: str, tables: set[str]) -> None:
    """Names of the store's folders, such as "prior", are no reason to cover the table of that name."""
    covered = fp.cover(ROOT / "workflow_scripts" / f"{script}.py").code
    found = {label.partition("SCHEMAS[")[2].rstrip("]") for label in covered if "SCHEMAS[" in label}
    assert found == tables
