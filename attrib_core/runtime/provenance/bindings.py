"""Find the names that a statement or a function binds: by assignment, import, parameter, and so on."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Target = tuple[str, str | None]
"""A module, and a name in it, or None for the module itself."""


def assigned(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> Iterator[str]:
    """Yield the names that an assignment binds or changes; none if it changes another module's."""
    pending: list[ast.expr] = list(node.targets) if isinstance(node, ast.Assign) else [node.target]
    while pending:
        target = pending.pop()
        if isinstance(target, ast.Tuple | ast.List):
            pending += target.elts
        elif isinstance(target, ast.Subscript | ast.Starred):
            pending.append(target.value)
        elif isinstance(target, ast.Name):
            yield target.id


def imported(
    node: ast.Import | ast.ImportFrom, module: str, is_package: bool
) -> tuple[dict[str, Target], set[str], set[str]]:
    """Return the names that an import binds, the modules it loads, and those it star-imports."""
    if isinstance(node, ast.Import):
        bound: dict[str, Target] = {
            alias.asname or alias.name.split(".")[0]: (
                alias.name if alias.asname else alias.name.split(".")[0],
                None,
            )
            for alias in node.names
        }
        return bound, {alias.name for alias in node.names}, set()
    base = node.module or ""
    if node.level:
        parents = module.split(".")
        parents = parents[: len(parents) - node.level + is_package]
        base = ".".join([*parents, *([base] if base else [])])
    names = [alias for alias in node.names if alias.name != "*"]
    bound = {alias.asname or alias.name: (base, alias.name) for alias in names}
    loaded = {base, *(f"{base}.{alias.name}" for alias in names)}
    return bound, loaded, {base} if len(names) < len(node.names) else set()


def variables(function: ast.AST) -> set[str]:
    """Return the local names of a function or lambda: parameters and what its body binds."""
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    arguments = function.args
    listed = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    found = {argument.arg for argument in listed if argument is not None}
    body = [function.body] if isinstance(function, ast.Lambda) else function.body
    found.update(name for node in body for name in stored(node))
    return found - _shared(function)


def _shared(function: ast.AST) -> set[str]:
    """Return the names that `global` declares here or in inner scopes."""
    found: set[str] = set()
    pending = [function]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Global):
            found.update(node.names)
        elif not isinstance(node, ast.expr):  # an expression contains no statement
            pending += ast.iter_child_nodes(node)
    return found


def stored(node: ast.AST, comprehension: bool = False) -> Iterator[str]:
    """Yield the names that are bound here, without those of inner scopes."""
    match node:
        case ast.Name(ctx=ast.Store()) if not comprehension:
            yield node.id
        case ast.NamedExpr():
            yield node.target.id
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
            return
        case ast.Lambda():
            return
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
    inside = comprehension or isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
    for child in ast.iter_child_nodes(node):
        yield from stored(child, inside)
