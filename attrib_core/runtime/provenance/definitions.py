"""Parse a Python module into definitions, each with a canonical text and its references.

The canonical text is the syntax tree without positions, docstrings and messages to the user, so formatting,
comments and messages change nothing. The references are names, imported modules and literal strings.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attrib_core.runtime.provenance.bindings import Target, assigned, imported, stored, variables

__all__ = ["Module", "Statement", "Target", "parse"]

IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
MESSAGE_CALLS = frozenset({"InputError"})
"""Calls whose arguments are messages to the user, and which end the job."""
IMPORTING_CALLS = frozenset({"import_module", "__import__"})
MESSAGE_KEYWORDS = frozenset({"description"})
LOGGERS = frozenset({"LOGGER"})
MESSAGE_POSITION = {"column": 2}
"""Positional arguments that are descriptions: the meaning of a column, in `schemas`."""


@dataclass
class Statement:
    """A top-level statement, or an entry of a dictionary of tables."""

    text: str
    """Canonical text."""
    chains: frozenset[tuple[str, ...]]
    """Names with the attributes read from them: ("np", "zeros")."""
    imports: dict[str, Target]
    """Names bound by imports inside the statement."""
    modules: frozenset[str]
    """Dotted names of all modules that the statement imports when it runs."""
    literals: frozenset[str]
    computed_imports: frozenset[int] = frozenset()
    """Lines that import a module by a name that is not a full literal."""


@dataclass
class Module:
    """A parsed module, whose statements are read when they are reached."""

    name: str
    path: Path
    imports: dict[str, Target] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    wildcards: set[str] = field(default_factory=set)
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)
    """Statements that run on import and bind no name."""
    is_package: bool = False
    _read: dict[int, Statement] = field(default_factory=dict)

    def statement(self, node: ast.AST) -> Statement:
        """Return the text and the references of a statement of this module."""
        if id(node) not in self._read:
            self._read[id(node)] = _Reader(self.name, self.is_package).read(node)
        return self._read[id(node)]


def parse(name: str, path: Path) -> Module:
    """Parse a file, or return the cached module if the file did not change."""
    return _parse(name, path, path.read_bytes())


@functools.lru_cache(maxsize=4096)
def _parse(name: str, path: Path, source: bytes) -> Module:
    tree = ast.parse(source, filename=str(path))
    module = Module(name, path, is_package=path.name == "__init__.py")
    _sort_statements(module, tree.body)
    for node in module.always:
        inner = module.statement(node)
        module.imports |= inner.imports
    return module


def _sort_statements(module: Module, body: list[ast.stmt]) -> None:
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom():
                imports, modules, wildcards = imported(node, module.name, module.is_package)
                module.imports |= imports
                module.modules |= modules
                module.wildcards |= wildcards
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                module.definitions.setdefault(node.name, []).append(node)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign() if names := list(assigned(node)):
                for name in names:
                    module.definitions.setdefault(name, []).append(node)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                _sort_statements(module, node.orelse)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                module.always.append(node)


class _Reader:
    """A visitor of one statement that writes its canonical text and collects its references."""

    def __init__(self, module: str, is_package: bool) -> None:
        self._module, self._is_package = module, is_package
        self._chains: set[tuple[str, ...]] = set()
        self._imports: dict[str, Target] = {}
        self._modules: set[str] = set()
        self._literals: set[str] = set()
        self._computed_imports: set[int] = set()
        self._scopes: list[set[str]] = []

    def read(self, node: ast.AST) -> Statement:
        text = self._text(node)
        return Statement(
            text,
            frozenset(self._chains),
            self._imports,
            frozenset(self._modules),
            frozenset(self._literals),
            frozenset(self._computed_imports),
        )

    def _text(self, node: object) -> str:
        match node:
            case ast.Attribute():
                self._attribute(node)
                return f"{self._text_quietly(node.value)}.{node.attr}"
            case ast.Name():
                self._refer(node.id)
                return node.id
            case ast.Constant():
                if isinstance(node.value, str):
                    self._literals.add(node.value)
                return f"{type(node.value).__name__}:{node.value!r}"
            case ast.Import() | ast.ImportFrom():
                imports, modules, wildcards = imported(node, self._module, self._is_package)
                self._imports |= imports
                self._modules |= modules | wildcards
                return f"import {sorted(imports.items(), key=str)} {sorted(wildcards)}"
            case ast.Call():
                return self._call(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._text(node.generators[0].iter)  # the first iterable is evaluated outside of the scope
                targets = [name for part in node.generators for name in stored(part.target)]
                with self._scope(set(targets)):
                    return self._fields(node)
            case ast.AST():
                return self._fields(node)
            case list():
                return "".join(f"[{self._text(item)}]" for item in node if not _is_message(item))
            case _:
                return repr(node)

    def _fields(self, node: ast.AST) -> str:
        texts = []
        for name, value in ast.iter_fields(node):
            if name in IGNORED_FIELDS or value in (None, []):
                continue
            if name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                with self._scope(variables(node)):
                    text = self._text(value)
            else:
                text = self._text(value)
            texts += [f"{name}={text}"] if text else []
        return f"{type(node).__name__}({','.join(texts)})"

    @contextmanager
    def _scope(self, names: set[str]) -> Iterator[None]:
        self._scopes.append(names)
        yield
        self._scopes.pop()

    def _attribute(self, node: ast.Attribute) -> None:
        """Record `a.b.c` as one chain, if it starts with a name."""
        attributes = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            attributes.append(value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self._refer(value.id, *reversed(attributes))

    def _refer(self, name: str, *attributes: str) -> None:
        """Record a name, unless it is a local variable of an enclosing function."""
        if not any(name in scope for scope in self._scopes):
            self._chains.add((name, *attributes))

    def _text_quietly(self, node: ast.expr) -> str:
        """Return the text of what precedes a dot, without recording its name as used alone."""
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return f"{self._text_quietly(node.value)}.{node.attr}"
        return self._text(node)

    def _call(self, node: ast.Call) -> str:
        function = self._text(node.func)
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        if called in MESSAGE_CALLS:
            return f"{function}()"
        if _is_computed_import(node):
            self._computed_imports.add(node.lineno)
        message = MESSAGE_POSITION.get(called)
        positional = [self._text(argument) for number, argument in enumerate(node.args) if number != message]
        keywords = [
            f"{keyword.arg}={self._text(keyword.value)}"
            for keyword in node.keywords
            if keyword.arg not in MESSAGE_KEYWORDS
        ]
        return f"{function}({','.join(positional + keywords)})"


def _is_computed_import(node: ast.Call) -> bool:
    """Return whether a call imports a module whose full name is not a literal."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called not in IMPORTING_CALLS:
        return False
    named = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
    match [*node.args, *named][:1]:
        case [ast.Constant(value=str(name))]:
            return name.startswith(".")
    return True


def _is_message(node: object) -> bool:
    """Return whether a statement only documents or logs: a bare string, or `LOGGER.info(...)`."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Pass():
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in LOGGERS
    return False
