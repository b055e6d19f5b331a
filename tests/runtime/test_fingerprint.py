"""A fingerprint changes when a result could, and only then."""

from __future__ import annotations

import os
import random
from importlib import metadata
from pathlib import Path

import pytest

from attrib_core.common.errors import InputError
from attrib_core.common.families import KINDS
from attrib_core.runtime.provenance import fingerprint as fp
from tests.files_fixtures import rewrite

ROOT = Path(__file__).parents[2]

PROJECT = {
    "script.py": """
        '''Count.'''
        from attrib_core.runtime.job import job
        with job(snakemake):
            from attrib_core import counting, tables
            tables.write(snakemake.output[0], "pool", counting.count(snakemake.input[0]))
    """,
    "attrib_core/__init__.py": "",
    "attrib_core/common/errors.py": "class InputError(ValueError): pass",
    "attrib_core/runtime/job.py": "def job(snakemake): return snakemake",
    "attrib_core/storage/schemas/registry.py": """
        import pyarrow as pa
        def column(name, kind, meaning): return pa.field(name, kind)
        _ID = column("id", pa.string(), "name of the row")
        SCHEMAS = {
            "pool": pa.schema([_ID, column("width", pa.int32(), "width in pixels")]),
            "ranks": pa.schema([_ID, column("rank", pa.int64(), "position")]),
        }
        def schema(name): return SCHEMAS[name]
    """,
    "attrib_core/tables.py": """
        from attrib_core.storage.schemas.registry import SCHEMAS, schema
        def write(path, name, rows): return schema(name), rows
        def other(path): return path
    """,
    "attrib_core/counting.py": """
        import logging
        import math as m
        from typing import TYPE_CHECKING
        from attrib_core.common import families
        from attrib_core.common.errors import InputError
from attrib_core.common.families import KINDS
        from attrib_core.shapes import area
        if TYPE_CHECKING:
            from attrib_core.unrelated import Thing
        LOGGER = logging.getLogger(__name__)
        SCALE = 3
        UNUSED = 4
        TABLE = {"a": 1}
        TABLE["b"] = 2
        def count(path: "Thing") -> int:
            '''Counts.'''
            from attrib_core import late
            LOGGER.info("counting %s", path)
            if not path:
                raise InputError(f"no {path}")
            unrelated = area(SCALE) + late.value() + len(TABLE)
            return helper(unrelated) + m.floor(2.5)
        def helper(x):
            return x + 1
        def unrelated(x):
            return x
        def lonely(x):
            return x
    """,
    "attrib_core/shapes.py": """
        from .sides import length as side
        def area(x):
            return side(x) ** 2
    """,
    "attrib_core/sides.py": """
        class Ruler:
            marks = 10
            def measure(self, x):
                return x * self.marks
        def length(x):
            return Ruler().measure(x)
    """,
    "attrib_core/late.py": """
        import csv
        from pathlib import Path
        def value():
            return len((Path(__file__).parent / "numbers.csv").read_text())
    """,
    "attrib_core/numbers.csv": "1,2,3",
    "attrib_core/unrelated.py": "class Thing: pass",
    "attrib_core/common/families.py": "def load(kind, name): return kind, name",
    "attrib_core/features/encoders/__init__.py": "",
    "attrib_core/features/encoders/pixel.py": """
        def load(size): return size
        class Pixel:
            def encode(self): return 1
    """,
    "attrib_core/features/encoders/other.py": "def load(): return 1",
}


class Project:
    """A small project on disk, and the fingerprint of its script before and after an edit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in PROJECT.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                "\n".join(line[8:] if line.startswith(" " * 8) else line for line in text.split("\n"))
            )

    def print(self, **options: object) -> str:
        return fp.cover(self.root / "script.py", root=self.root, **options).digest  # type: ignore[arg-type]

    def changes(self, name: str, old: str, new: str, **options: object) -> bool:
        """Whether replacing `old` by `new` in a file changes the fingerprint."""
        before, path = self.print(**options), self.root / name
        text = path.read_text()
        assert text.count(old) == 1, (name, old)
        rewrite(path, text.replace(old, new).encode())
        return self.print(**options) != before


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


CODE = "attrib_core/counting.py"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("script.py", '"pool", counting', '"pool", 1, counting'),
        (CODE, "x + 1", "x + 2"),
        (CODE, "SCALE = 3", "SCALE = 5"),
        (CODE, 'TABLE["b"] = 2', 'TABLE["c"] = 2'),
        (CODE, "import math as m", "import cmath as m"),
        (CODE, "if not path", "if path is None"),
        (CODE, "2.5", "3"),
        ("attrib_core/shapes.py", "** 2", "** 3"),
        ("attrib_core/shapes.py", "import length as", "import Ruler as"),
        ("attrib_core/sides.py", "marks = 10", "marks = 11"),
        ("attrib_core/sides.py", "x * self", "x + self"),
        ("attrib_core/late.py", "return len", "return 2 * len"),
        ("attrib_core/numbers.csv", "3", "4"),
        ("attrib_core/storage/schemas/registry.py", "pa.int32()", "pa.int64()"),
        (
            "attrib_core/storage/schemas/registry.py",
            'column("id", pa.string()',
            'column("id", pa.large_string()',
        ),
        ("attrib_core/tables.py", "schema(name), rows", "rows, schema(name)"),
        ("attrib_core/tables.py", "def other(", "sorted([])\ndef other("),
    ],
)
def test_what_can_change_a_result_counts(project, name, old, new):
    assert project.changes(name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("script.py", "'''Count.'''", "'''Count all.'''  # and a comment"),
        (CODE, "'''Counts.'''", ""),
        (CODE, "SCALE = 3", "SCALE  =  (3)  # three"),
        (CODE, "    return x + 1", "    return (\n        x\n        + 1\n    )"),
        (CODE, "def lonely(x):\n    return x", "def lonely(x):\n    return 2 * x"),
        (CODE, "UNUSED = 4", "UNUSED = 5"),
        (CODE, "def unrelated(x):\n    return x", "def unrelated(x):\n    return 2 * x"),
        (CODE, '"counting %s", path', '"counting slowly %s", path'),
        (CODE, 'f"no {path}"', 'f"there is no {path}"'),
        (CODE, "def lonely", "def added(): return 1\ndef lonely"),
        ("attrib_core/unrelated.py", "pass", "x = 1"),
        ("attrib_core/tables.py", "return path", "return path, 1"),
        ("attrib_core/storage/schemas/registry.py", "width in pixels", "width of the image"),
        ("attrib_core/storage/schemas/registry.py", "pa.int64()", "pa.int32()"),
        ("attrib_core/storage/schemas/registry.py", "SCHEMAS = {", 'SCHEMAS = {\n    "new": pa.schema([]),'),
        ("attrib_core/runtime/job.py", "return snakemake", "return None"),
        ("attrib_core/common/errors.py", "pass", "x = 1"),
        ("attrib_core/features/encoders/other.py", "return 1", "return 2"),
        ("attrib_core/features/encoders/pixel.py", "return 1", "return 2"),
    ],
)
def test_what_cannot_change_a_result_does_not_count(project, name, old, new):
    assert not project.changes(name, old, new)


def test_the_order_of_definitions_does_not_count(project):
    before = project.print()
    path = project.root / CODE
    text = path.read_text()
    helper = "def helper(x):\n    return x + 1\n"
    path.write_text(text.replace(helper, "") + "\n" + helper)
    assert project.print() == before


def test_a_named_family_counts_completely_and_others_do_not(project):
    families = ("encoders/pixel",)
    assert project.changes(
        "attrib_core/features/encoders/pixel.py", "return 1", "return 2", families=families
    )
    assert not project.changes(
        "attrib_core/features/encoders/other.py", "return 1", "return 2", families=families
    )
    assert project.print(families=families) != project.print()
    with pytest.raises(InputError, match="encoders/pixle"):
        project.print(families=("encoders/pixle",))


@pytest.mark.parametrize(
    "use",
    [
        "import importlib\nname = 'more'\nimportlib.import_module(f'attrib_core.{name}')",
        "import importlib\ndef f(name):\n    return importlib.import_module('attrib_core.' + name)",
        "from importlib import import_module\nimport_module('.more', 'attrib_core')",
        "from importlib import import_module\nimport_module(package='attrib_core', name='.more')",
        "x = lambda name: __import__(name)",
    ],
)
def test_an_import_that_cannot_be_followed_is_an_error(project, use):
    (project.root / "attrib_core/used.py").write_text(f"{use}\n")
    (project.root / "script.py").write_text("from attrib_core import used\nused.f\n")
    line = use.count("\n") + 1
    with pytest.raises(InputError, match=rf"used.py, line {line}: imports a module by a computed name"):
        project.print()


def test_an_import_by_a_computed_name_that_nothing_reaches_is_no_error(project):
    (project.root / "attrib_core/used.py").write_text(
        "def f():\n    return 1\ndef g(name):\n    __import__(name)\n"
    )
    (project.root / "script.py").write_text("from attrib_core import used\nused.f()\n")
    assert project.print()


@pytest.mark.parametrize(
    "use",
    [
        "from attrib_core import more\nmore.value()",
        "import attrib_core.more\nattrib_core.more.value()",
        "import attrib_core.more as more\nmore.value()",
        "from attrib_core.more import value\nvalue()",
        "from attrib_core.more import value as v\nv()",
        "from attrib_core.more import *\nvalue()",
        "from attrib_core import more\ngetattr(more, 'val' + 'ue')()",
        "def f():\n    from attrib_core.more import value\n    return value()",
        "try:\n    from attrib_core.more import value\nexcept ImportError:\n    value = None\nvalue()",
        "import importlib\nimportlib.import_module('attrib_core.more').value()",
        "from attrib_core import again\nagain.value()",
        "from attrib_core import again\nagain.through()",
        "from attrib_core import again\nagain.Kind().go()",
        "import attrib_core.registered",
        "from attrib_core import registered",
        "from attrib_core import registered\nregistered.run('value')",
        "from attrib_core import more\nclass A:\n    x = more.value()",
        "from attrib_core import more\nx = lambda value: more.value()",
        "from attrib_core import more\nx = [more for more in [more.value()]]",
        "from attrib_core import more\ndef f(x=more.value()):\n    more = 1",
        "from attrib_core import more\ndef f():\n    def g():\n        more = 1\n    return more.value()",
        "from attrib_core import more\ndef f():\n    [1 for more in ()]\n    return more.value()",
        "from attrib_core import more\ndef f():\n    global more\n    more.value()\n    more = 1",
    ],
)
def test_every_way_to_a_name_is_followed(project, use):
    (project.root / "attrib_core/more.py").write_text(
        "def value():\n    return _inner()\ndef _inner():\n    return 1\n"
    )
    (project.root / "attrib_core/again.py").write_text(
        "from attrib_core.more import value\nimport attrib_core.more\n"
        "def through():\n    return attrib_core.more.value()\n"
        "class Kind:\n    def go(self):\n        return value()\n"
    )
    (project.root / "attrib_core/registered.py").write_text(
        "KNOWN = {}\ndef register(f):\n    KNOWN[f.__name__] = f\n    return f\n"
        "@register\ndef value():\n    from attrib_core import more\n    return more.value()\n"
        "def run(name):\n    return KNOWN[name]()\n"
    )
    (project.root / "script.py").write_text(use + "\n")
    assert project.changes("attrib_core/more.py", "return 1", "return 2")


@pytest.mark.parametrize(
    "use",
    [
        "from attrib_core import more\nmore.value()",
        "from attrib_core import more\ndef f(other):\n    return other + more.value()",
        "from attrib_core.more import value\nother = [other for other in value()]",
    ],
)
def test_only_what_is_used_counts(project, use):
    (project.root / "attrib_core/more.py").write_text(
        "def value():\n    other = 1\n    return other\ndef other():\n    return 7\n"
    )
    (project.root / "script.py").write_text(use + "\n")
    assert not project.changes("attrib_core/more.py", "return 7", "return 8")


def test_what_a_package_re_exports_counts_with_the_package(project):
    folder = project.root / "attrib_core/features/encoders/text"
    folder.mkdir()
    (folder / "__init__.py").write_text("from attrib_core.features.encoders.text.encoder import load\n")
    (folder / "encoder.py").write_text("def load():\n    return 1\ndef unused():\n    return 2\n")
    name, families = "attrib_core/features/encoders/text/encoder.py", ["encoders/text"]
    assert project.changes(name, "return 1", "return 3", families=families)
    assert not project.changes(name, "return 2", "return 4", families=families)
    (project.root / "script.py").write_text(
        "from attrib_core.features.encoders import text\nprint(text)\n"
    )  # passed around as a value
    assert project.changes(name, "return 3", "return 5")
    assert not project.changes(name, "return 4", "return 6")


@pytest.mark.parametrize("kind", KINDS)
def test_a_family_is_found_in_the_package_of_its_kind(project, kind):
    folder = project.root.joinpath(*KINDS[kind].split("."))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text("def load():\n    return 1\n")
    name = (folder / "mine.py").relative_to(project.root).as_posix()
    assert project.changes(name, "return 1", "return 2", families=[f"{kind}/mine"])
    assert project.print(families=[f"{kind}/mine"]) == project.print(modules=[f"{KINDS[kind]}.mine"])


def test_an_unknown_kind_of_family_is_an_error(project):
    with pytest.raises(InputError, match="encoder/pixel: no such kind of family, did you mean 'encoders'"):
        project.print(families=["encoder/pixel"])


def test_a_named_module_counts_completely(project):
    modules = ["attrib_core.sides"]
    assert project.changes("attrib_core/sides.py", "marks = 10", "marks = 11", modules=modules)
    assert project.changes("attrib_core/unrelated.py", "pass", "x = 1", modules=["attrib_core.unrelated"])
    with pytest.raises(
        InputError, match=r"attrib_core\.gone: no such module; expected a file attrib_core/gone\.py"
    ):
        project.print(modules=["attrib_core.gone"])


def test_a_dictionary_of_tables_that_is_used_itself_counts_completely(project):
    (project.root / "script.py").write_text(
        "from attrib_core.storage.schemas import registry\nfor name in registry.SCHEMAS: print(name)"
    )
    assert project.changes("attrib_core/storage/schemas/registry.py", "pa.int64()", "pa.int32()")


def test_data_files_and_folders_count_by_their_bytes(project, tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    before = project.print(data=[folder])
    rewrite(folder / "a.txt", b"two")
    after = project.print(data=[folder])
    assert before != after != project.print(data=[folder / "a.txt"])
    os.utime(folder / "a.txt", (1, 1))
    assert project.print(data=[folder]) == after
    with pytest.raises(InputError, match="nothing"):
        project.print(data=[tmp_path / "nothing"])


def test_versions_of_packages_count(project, monkeypatch):
    before = project.print(packages=["numpy", "pyarrow"])
    real = metadata.version
    monkeypatch.setattr(fp.metadata, "version", lambda name: "99.0" if name == "numpy" else real(name))
    fp._version.cache_clear()
    assert project.print(packages=["numpy", "pyarrow"]) != before
    monkeypatch.undo()
    fp._version.cache_clear()
    assert project.print(packages=["numpy", "pyarrow"]) == before
    assert project.print(packages=["no-such-package"]) != project.print()


def test_the_location_of_the_project_does_not_count(project, tmp_path):
    other = Project(tmp_path / "elsewhere")
    assert other.print() == project.print()


def test_a_missing_script_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"gone\.py: no such script"):
        fp.cover(tmp_path / "gone.py")


def test_a_mutation_anywhere_in_reach_is_seen(project):
    """Change each number of each reached definition, one at a time, and see the fingerprint change."""
    rng = random.Random(0)
    for name in ("counting", "shapes", "sides"):
        path = project.root / f"attrib_core/{name}.py"
        original = path.read_text()
        places = [number for number, letter in enumerate(original) if letter.isdigit()]
        for place in rng.sample(places, min(4, len(places))):
            line_start = original.rfind("\n", 0, place)
            if "UNUSED" in original[line_start:place]:
                continue
            before = project.print()
            path.write_text(original[:place] + "8" + original[place + 1 :])
            assert project.print() != before, original[line_start:place]
            path.write_text(original)
            assert project.print() == before


def test_a_module_that_asks_itself_for_a_missing_one_ends(project):
    (project.root / "attrib_core/circle.py").write_text("from attrib_core.circle import gone\n")
    (project.root / "script.py").write_text("from attrib_core.circle import gone\ngone()\n")
    assert len(project.print()) == 20
