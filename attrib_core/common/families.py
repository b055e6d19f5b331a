"""Families: interchangeable modules that are found by the name of their file.

`encoders/timm.py` is the family `timm` of the kind `encoders`. The config names a family, and its other options are
keywords of that file's `load` function, so that a new family is one file and one config entry. No list imports every
family: a new encoder would otherwise make the results of all others stale.

A family's module is cheap to import; it imports whatever is heavy (torch, timm) inside `load`. So options can be
checked as soon as the config is read.

Besides `load` a module may define, each a function of the options as keywords:
`checked`, which returns the options after checks that annotations cannot express (the message of its InputError begins
    with the key: "cells: ...");
`members`, the config sections of further families of its kind that it combines;
`dim`, for an encoder, the number of features, or None where only its network could tell;
`files`, what it reads besides its code, and `PACKAGES`, distributions whose version matters;
`others`, families of other kinds that it loads, such as "base_models/folder".
A family of `priors` also names in `READS` which of "base_model", "pool" and "excluded" it takes images from, and may
define `state`, a digest of files outside the run.

A kind may have presets: a family with its options under one name, in the file `presets.toml` of its folder. A section
names one by `preset` in place of `family`; `with_preset` replaces it as soon as the config is read, so that a new
preset makes nothing stale.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import tomllib
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic

from attrib_core.common.errors import InputError, close_matches, cut, printable, shown
from attrib_core.common.validation import validate

KINDS = {
    "sources": "attrib_core.data.sources",
    "base_models": "attrib_core.diffusion.base_models",
    "customizers": "attrib_core.diffusion.customizers",
    "priors": "attrib_core.diffusion.priors",
    "encoders": "attrib_core.features.encoders",
}
"""The package of each kind of families."""
CONTEXT = ("device", "seed")
"""Parameters of `load` that a stage provides. The config may set them, and then has precedence."""


def names(kind: str) -> list[str]:
    """Return the families of a kind: its files and folders whose names do not start with an underscore."""
    if kind not in KINDS:
        raise KeyError(f"no kind of family {kind!r}; known: {', '.join(KINDS)}")
    package = importlib.import_module(KINDS[kind])
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def module(kind: str, family: str, where: str | None = None) -> ModuleType:
    """Import and return the module of a family. Raises InputError with similar names for an unknown family."""
    where = where or kind
    if family not in names(kind):
        raise InputError(f"{where}.family: no family {shown(family)}, {close_matches(family, names(kind))}")
    with _check_packages(where, family):
        return importlib.import_module(f"{KINDS[kind]}.{family}")


def parameters(kind: str, family: str, where: str | None = None) -> dict[str, inspect.Parameter]:
    """Return the options of a family in order: the parameters of its `load`, with annotations resolved.

    `load` is a function, or a class whose fields are the options.
    """
    function = module(kind, family, where).load
    known = inspect.signature(function).parameters
    annotations = {name: one.annotation for name, one in known.items() if one.annotation is not one.empty}
    # Only of parameters: the type that `load` returns may be imported inside it.
    holder = type("Options", (), {"__annotations__": annotations})
    module_names = vars(sys.modules[function.__module__])
    hints = typing.get_type_hints(holder, globalns=module_names, include_extras=True)
    return {name: one.replace(annotation=hints.get(name, one.empty)) for name, one in known.items()}


def check(kind: str, family: str, options: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
    """Return all options of a family, checked, with defaults for those that are not given.

    Nothing heavy is imported. Values are checked against the annotations of `load`, which may have bounds
    (`size: Annotated[int, Field(ge=8)]`). Context that is not given is left out. `where` is the config key that names
    the family. Raises InputError for an unknown family, an unknown or missing option, or a wrong value.
    """
    where = where or kind
    known = parameters(kind, family, where)
    for name in options:
        if name not in known:
            raise InputError(
                f"{where}.{cut(printable(name))}: no option of family {family!r}, {close_matches(name, known)}"
            )
    model = options_model(
        kind, family, where=where, with_context=[name for name in CONTEXT if name in options]
    )
    for name, field in model.model_fields.items():
        if field.is_required() and name not in options:
            raise InputError(f"{where}.{name}: family {family!r} needs this option, and it is missing")
    checked = validate(model, options, where)
    return {name: getattr(checked, name) for name in model.model_fields}


def options_model(
    kind: str, family: str, *, where: str | None = None, with_context: Collection[str] = ()
) -> type[pydantic.BaseModel]:
    """Return the options of a family as a pydantic model; an option without an annotation takes any value."""
    empty = inspect.Parameter.empty
    fields: dict[str, Any] = {
        name: (
            Any if parameter.annotation is empty else parameter.annotation,
            ... if parameter.default is empty else parameter.default,
        )
        for name, parameter in parameters(kind, family, where).items()
        if name not in CONTEXT or name in with_context
    }
    settings = pydantic.ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=()
    )
    return pydantic.create_model(family, __config__=settings, **fields)


def load(
    kind: str, family: str, options: Mapping[str, Any], *, where: str | None = None, **context: Any
) -> Any:
    """Return what the family's `load` returns for some options.

    `context` is what the stage provides (`device`, `seed`); a family receives those that its `load` names. Options are
    checked first, as in `check`. Raises InputError also for a package that the family needs and that is not installed.
    """
    for name in context:
        if name not in CONTEXT:
            raise TypeError(f"load() got context {name!r}; known: {', '.join(CONTEXT)}")
    function = module(kind, family, where).load
    known = parameters(kind, family, where)
    given = {name: value for name, value in context.items() if name in known}
    arguments = given | check(kind, family, options, where)
    with _check_packages(where or kind, family):
        return function(**arguments)


def split(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split a config section `{family: name, option: value, ...}` into the family's name and its options."""
    options = dict(section)
    return options.pop("family"), options


def presets(kind: str) -> dict[str, dict[str, Any]]:
    """Return the presets of a kind by name, from a file that documents them; most kinds have none."""
    path = Path(*importlib.import_module(KINDS[kind]).__path__) / "presets.toml"
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}


def with_preset(kind: str, section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a section with its `preset` replaced by family and options; a section without a preset as it is.

    The section's own options have precedence over those of the preset. Raises InputError for an unknown preset, a
    `family` in addition to it, and weights that the preset cannot name and the section does not.
    """
    if "preset" not in section:
        return dict(section)
    name, known = section["preset"], presets(kind)
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{where}.preset: no preset {shown(name)}, {close_matches(str(name), known)}")
    if "family" in section:
        raise InputError(
            f"{where}.family: {section['family']!r} in addition to a preset, which names its own; remove one"
        )
    preset = known[name]
    own = {key: value for key, value in section.items() if key != "preset"}
    found = {"family": preset["family"]} | preset["options"] | own
    if "weights" not in found and "weights" in (options := parameters(kind, preset["family"])):
        lacking = [
            option
            for option, one in options.items()
            if one.default is inspect.Parameter.empty and option not in (*found, "weights", *CONTEXT)
        ]
        also = f", and set {' and '.join(lacking)}" if lacking else ""
        raise InputError(
            f"{where}.weights: preset {name!r} needs the file {preset['source']}; fetch it, and name it here{also}"
        )
    return found


def complete(kind: str, section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the config section of a family with all options, after `check` and the family's own `checked`.

    Raises InputError as `check` does, and for options that the family finds inconsistent.
    """
    family, options = split(section)
    options = check(kind, family, options, where)
    own = getattr(module(kind, family), "checked", None)
    try:
        return {"family": family} | (own(**options) if own else options)
    except InputError as error:
        raise InputError(f"{where}.{error}") from None


def members(kind: str, section: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return name and options of a section's family, then of the families that it combines, if any."""
    family, options = split(section)
    inner = getattr(module(kind, family), "members", None)
    found = [(family, options)]
    for one in inner(**options) if inner else ():
        found += members(kind, one)
    return found


def dim(section: Mapping[str, Any], where: str) -> int | None:
    """Return the number of features of an encoder's section without opening a network; None where that takes one.

    Asks the family's `dim`; a family that computes on no device has no network and is loaded.
    """
    family, options = split(section)
    own = getattr(module("encoders", family, where), "dim", None)
    if own is not None:
        found: int | None = own(**check("encoders", family, options, where))
        return found
    if "device" in parameters("encoders", family, where):
        return None
    return int(load("encoders", family, options, where=where).dim)


@contextmanager
def _check_packages(where: str, family: str) -> Iterator[None]:
    """Turn a failing import of a third-party package into an InputError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "attrib_core":
            raise
        package = error.name.split(".")[0]
        raise InputError(
            f"{where}: family {family!r} needs the package {package!r}, which is not installed"
        ) from error
