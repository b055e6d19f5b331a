"""Find all definitions and data files that a script reaches; `fingerprint` takes the digest of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrib_core.common.errors import InputError
from attrib_core.runtime.provenance.definitions import Module, Statement, Target, parse
from attrib_core.storage import digests

PACKAGE = "attrib_core"
UNCOUNTED = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "runtime.job",
        "runtime.progress",
        "common.errors",
        "storage.file_kinds",
        "storage.rerun_hints",
        "data.image_kinds",
    )
)
"""Modules that surround the computation, or write messages, and never affect a result."""
BY_CONFIG = frozenset({f"{PACKAGE}.common.families"})
"""Modules that import others by names from the config; each rule lists those for its fingerprint."""
BY_LITERAL = {f"{PACKAGE}.storage.schemas.registry": "SCHEMAS"}
"""Dictionaries whose entries are looked up by a literal name: an entry counts if the code that is
reached contains its name as a string. So a new or changed table touches only its users."""
DATA_SUFFIXES = frozenset({".csv", ".txt", ".json", ".toml", ".yaml", ".yml", ".html", ".css", ".js", ".svg"})


class Walk:
    """A traversal of references. `found` maps the name of each definition that was reached to its canonical texts."""

    def __init__(self, root: Path) -> None:
        self.found: dict[str, list[str]] = {}
        self.external: set[str] = set()
        """Top-level packages outside of ours that the reached code imports."""
        self._root = root
        self._modules: dict[str, Module | None] = {}
        self._loaded: set[str] = set()
        self._visited: set[str] = set()
        self._literals: set[str] = set()
        self._all_entries: set[str] = set()
        self._pending: list[tuple[Module, ast.AST]] = []

    def module(self, name: str) -> Module | None:
        """Return the module of a dotted name; None if it is not in the package."""
        if name not in self._modules:
            self._modules[name] = None
            if name.split(".")[0] == PACKAGE and name not in UNCOUNTED:
                stem = self._root.joinpath(*name.split("."))
                for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
                    if path.is_file():
                        self._modules[name] = parse(name, path)
        return self._modules[name]

    def script(self, path: Path) -> None:
        """Reach everything in a script."""
        if not path.is_file():
            raise InputError(f"{path}: no such script")
        module = parse(path.name, path)
        self._modules[path.name] = module
        self.reach_module(path.name)

    def load(self, name: str) -> None:
        """Reach what an import executes: parent packages, statements that bind no name, further imports."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            inner = ".".join(parts[:end])
            module = self.module(inner)
            if module is None or inner in self._loaded:
                continue
            self._loaded.add(inner)
            for other in sorted(module.modules | module.wildcards):
                self.load(other)
            for node in module.always:
                self._statement(module, node, f"{inner}:")
            for defined, nodes in module.definitions.items():
                if any(self._registers(module, node) for node in nodes):
                    self.reach(inner, defined)

    def reach_module(self, name: str) -> None:
        """Reach all definitions of a module, and all that a package re-exports."""
        module = self.module(name)
        if module is None:
            return
        self.load(name)
        for defined in module.definitions:
            self.reach(name, defined)
        if module.is_package:
            for imported in module.imports:
                self.reach(name, imported)
        for other in module.wildcards:
            self.reach_module(other)

    def reach(self, name: str, wanted: str) -> None:
        """Reach a name in a module: its definitions, or what it was imported from."""
        module = self.module(name)
        label = f"{name}.{wanted}"
        if module is None or label in self._visited:
            return
        self._visited.add(label)
        self.load(name)
        if BY_LITERAL.get(name) == wanted:
            self.found[label] = []
            return
        if wanted in module.definitions:
            self.found[label] = []
            for node in module.definitions[wanted]:
                self._statement(module, node, label)
        elif wanted in module.imports:
            self._follow(module.imports[wanted], ())
        elif self.module(label) is not None:
            self.reach_module(label)
        elif not (wanted.startswith("__") and wanted.endswith("__")):
            self.found[label] = []
            self.reach_module(name)

    def literal_entries(self) -> None:
        """Reach the entries of the dictionaries in BY_LITERAL whose names the code found so far contains."""
        for name, wanted in BY_LITERAL.items():
            label = f"{name}.{wanted}"
            module = self.module(name)
            if module is None or label not in self.found:
                continue
            for node in module.definitions[wanted]:
                value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
                if not isinstance(value, ast.Dict):
                    self._statement(module, node, label)
                    continue
                used = set(self._literals)  # literals inside an entry do not select other entries
                for entry_key, entry in zip(value.keys, value.values, strict=True):
                    literal = str(entry_key.value) if isinstance(entry_key, ast.Constant) else ""
                    if not literal or literal in used or label in self._all_entries:
                        self._statement(module, entry, f"{label}[{literal}]")
        self.follow_all()

    def _statement(self, module: Module, node: ast.AST, label: str) -> None:
        """Add a statement; its references are followed later, to keep recursion shallow."""
        self.found.setdefault(label, []).append(module.statement(node).text)
        self._pending.append((module, node))

    def follow_all(self) -> None:
        """Follow references until no new statement is found."""
        while self._pending:
            module, node = self._pending.pop()
            self._references(module, module.statement(node))

    def _references(self, module: Module, statement: Statement) -> None:
        if statement.computed_imports and module.name not in BY_CONFIG:
            raise InputError(
                f"{module.path}, line {min(statement.computed_imports)}: imports a module by a computed name, which no"
                f" fingerprint can follow, so that its changes would go unnoticed; write the name in full, such as"
                f" {PACKAGE + '.images'!r}, or make the module a family that the config names"
            )
        self._literals |= statement.literals
        self._data_files(module, statement)
        for name in sorted(statement.modules):
            self._add_external(name)
            self.load(name)
        for literal in statement.literals:
            if literal.startswith(f"{PACKAGE}."):
                self.reach_module(literal)
        for chain in sorted(statement.chains):
            self._name(module, statement, chain)

    def _name(self, module: Module, statement: Statement, chain: tuple[str, ...]) -> None:
        first, *rest = chain
        if first in module.definitions:
            self.reach(module.name, first)
        for imports in (module.imports, statement.imports):
            if first in imports:
                target = imports[first]
                self.found[f"{module.name}:{first}"] = [str(target)]
                self._follow(target, rest)
        for other in module.wildcards:
            self.reach_module(other)

    def _follow(self, target: Target, attributes: Sequence[str]) -> None:
        """Reach what an imported name with attributes refers to."""
        name, wanted = target
        self._add_external(name)
        if wanted is not None:
            if self.module(f"{name}.{wanted}") is None:
                self._note_import(name, wanted)
                self.reach(name, wanted)
                return
            name = f"{name}.{wanted}"
        remaining = list(attributes)
        while remaining and self.module(f"{name}.{remaining[0]}") is not None:
            name = f"{name}.{remaining.pop(0)}"
        if remaining:
            self._note_import(name, remaining[0])
            self.reach(name, remaining[0])
        else:
            self.reach_module(name)

    def _add_external(self, name: str) -> None:
        top = name.split(".")[0]
        if top != PACKAGE and top.isidentifier():
            self.external.add(top)

    def _note_import(self, name: str, wanted: str) -> None:
        """Count all entries of a dictionary of BY_LITERAL if another module imports the dictionary itself."""
        if BY_LITERAL.get(name) == wanted:
            self._all_entries.add(f"{name}.{wanted}")

    def _registers(self, module: Module, node: ast.stmt) -> bool:
        """Return whether a decorator of the package may register the definition where no name refers to it."""
        decorators: Iterable[ast.expr] = getattr(node, "decorator_list", ())
        for decorator in decorators:
            root: ast.AST = decorator
            while isinstance(root, ast.Attribute | ast.Call):
                root = root.value if isinstance(root, ast.Attribute) else root.func
            if isinstance(root, ast.Name):
                target = module.imports.get(root.id, ("", None))[0]
                if root.id in module.definitions or target.split(".")[0] == PACKAGE:
                    return True
        return False

    def _data_files(self, module: Module, statement: Statement) -> None:
        for literal in statement.literals:
            if Path(literal).suffix in DATA_SUFFIXES and len(Path(literal).parts) == 1:
                path = module.path.parent / literal
                if path.is_file():
                    self.found[f"{module.name}/{literal}"] = [digests.of_file_or_folder(path)]
