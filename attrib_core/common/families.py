"""Families: interchangeable parts that are found by the name of their file.

`encoders/timm.py` is the family `timm` of the kind `encoders`. The config names
a family, and its other options are keywords of that file's `load` function, so
a new family is one file and one config entry. No list imports every family: a
new encoder would otherwise make the results of all others stale.

A family's module is cheap to import; whatever is heavy (torch, timm) it imports
inside `load`. So options can be checked as soon as the config is read.

Beside `load` a module may have, each taking the options as keywords:
`checked`, the options once more, after a check that annotations cannot say (an InputError
    of it begins with the key: "cells: ...");
`members`, the sections of further families of its kind that it is made of;
`dim`, for an encoder, the number of features, or None where only its network could tell;
`files`, what it reads beside its code, and `PACKAGES`, distributions whose version counts;
`others`, families of other kinds that it loads, as "base_models/folder".
A family of `priors` also says in `READS` which of "base_model", "pool" and "excluded" it takes images
from, and may have `state`, a digest of files outside.

A kind may have presets: families with their options under one name, in the file `presets.toml` of its
folder. A section names one by `preset` in place of `family`; `with_preset` puts in what it stands for, as
soon as the config is read, so that a new preset makes nothing stale.
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

from attrib_core.common.errors import InputError, close_matches
from attrib_core.common.validation import validated

KINDS = {
    "sources": "attrib_core.data.sources",
    "base_models": "attrib_core.diffusion.base_models",
    "customizers": "attrib_core.diffusion.customizers",
    "priors": "attrib_core.diffusion.priors",
    "encoders": "attrib_core.features.encoders",
}
"""The package that holds the families of each kind."""
CONTEXT = ("device", "seed")
"""Names that a stage gives to those `load` functions that ask for them. They are not demanded of
the config, but may be set there, and then the config wins."""


def names(kind: str) -> list[str]:
    """The families of a kind: its files and folders whose names do not start with an underscore."""
    if kind not in KINDS:
        raise KeyError(f"no kind of family {kind!r}; known: {', '.join(KINDS)}")
    package = importlib.import_module(KINDS[kind])
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def module(kind: str, family: str, where: str | None = None) -> ModuleType:
    """The module of a family; InputError with near names for one that is not there."""
    where = where or kind
    if family not in names(kind):
        raise InputError(f"{where}.family: no family {family!r}, {close_matches(family, names(kind))}")
    with _packages_at_hand(where, family):
        return importlib.import_module(f"{KINDS[kind]}.{family}")


def parameters(kind: str, family: str, where: str | None = None) -> dict[str, inspect.Parameter]:
    """The options of a family in order: the parameters of its `load`, annotations resolved.

    `load` is a function, or a class whose fields are the options.
    """
    function = module(kind, family, where).load
    known = inspect.signature(function).parameters
    written = {name: one.annotation for name, one in known.items() if one.annotation is not one.empty}
    # Parameters alone: what `load` returns may be named by an import that it makes itself.
    holder = type("Options", (), {"__annotations__": written})
    names_there = vars(sys.modules[function.__module__])
    hints = typing.get_type_hints(holder, globalns=names_there, include_extras=True)
    return {name: one.replace(annotation=hints.get(name, one.empty)) for name, one in known.items()}


def check(kind: str, family: str, options: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
    """All options of a family, checked, with the defaults of those that were not given.

    Nothing heavy is imported. Annotations of `load` are held against the values, so bounds
    can be written there (`size: Annotated[int, Field(ge=8)]`). Context that was not given is
    left out. `where` is the config key that names the family.

    Raises InputError for an unknown family, an unknown or missing option, or a wrong value.
    """
    where = where or kind
    known = parameters(kind, family, where)
    for name in options:
        if name not in known:
            raise InputError(f"{where}.{name}: no option of family {family!r}, {close_matches(name, known)}")
    model = options_model(
        kind, family, where=where, with_context=[name for name in CONTEXT if name in options]
    )
    for name, field in model.model_fields.items():
        if field.is_required() and name not in options:
            raise InputError(f"{where}.{name}: family {family!r} needs this option, and it is missing")
    checked = validated(model, options, where)
    return {name: getattr(checked, name) for name in model.model_fields}


def options_model(
    kind: str, family: str, *, where: str | None = None, with_context: Collection[str] = ()
) -> type[pydantic.BaseModel]:
    """The options of a family as a pydantic model; one without an annotation takes any value."""
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
    """What the family's `load` returns for these options.

    `context` is what the stage knows (`device`, `seed`); a family receives what its `load`
    names. Options are checked first, as in `check`. Raises InputError also where a package
    that the family needs is not installed.
    """
    for name in context:
        if name not in CONTEXT:
            raise TypeError(f"load() got context {name!r}; known: {', '.join(CONTEXT)}")
    function = module(kind, family, where).load
    known = parameters(kind, family, where)
    given = {name: value for name, value in context.items() if name in known}
    arguments = given | check(kind, family, options, where)
    with _packages_at_hand(where or kind, family):
        return function(**arguments)


def split(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A config section `{family: name, option: value, ...}` as the family's name and its options."""
    options = dict(section)
    return options.pop("family"), options


def presets(kind: str) -> dict[str, dict[str, Any]]:
    """The presets of a kind by name; the head of their file says what is known of each. Most kinds have none."""
    path = Path(*importlib.import_module(KINDS[kind]).__path__) / "presets.toml"
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}


def with_preset(kind: str, section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A section with what its `preset` stands for in its place; one without that key as it is.

    What the section says beside it counts before the preset's options. Raises InputError for an
    unknown preset, a `family` beside it, and weights that the preset cannot name and the section does not.
    """
    if "preset" not in section:
        return dict(section)
    name, known = section["preset"], presets(kind)
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{where}.preset: no preset {name!r}, {close_matches(str(name), known)}")
    if "family" in section:
        raise InputError(
            f"{where}.family: {section['family']!r} beside a preset, which names its own; take one out"
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
        beside = f", with {' and '.join(lacking)} beside it" if lacking else ""
        raise InputError(
            f"{where}.weights: preset {name!r} needs the file {preset['source']}; fetch it, and name it here{beside}"
        )
    return found


def complete(kind: str, section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config section of a family, checked, with all options: `check`, and the family's own `checked`.

    Raises InputError as `check` does, and for what the family finds wrong between its options.
    """
    family, options = split(section)
    options = check(kind, family, options, where)
    own = getattr(module(kind, family), "checked", None)
    try:
        return {"family": family} | (own(**options) if own else options)
    except InputError as error:
        raise InputError(f"{where}.{error}") from None


def members(kind: str, section: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and options of a section's family, then of those that it is made of (most: of none)."""
    family, options = split(section)
    inner = getattr(module(kind, family), "members", None)
    found = [(family, options)]
    for one in inner(**options) if inner else ():
        found += members(kind, one)
    return found


def dim(section: Mapping[str, Any], where: str) -> int | None:
    """Features an image of an encoder's section, without opening a network; None where that takes one.

    A family says so itself, by `dim`; one that computes on no device has no network and is asked.
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
def _packages_at_hand(where: str, family: str) -> Iterator[None]:
    """Turns a failing import of a third-party package into a line for the user."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "attrib_core":
            raise
        package = error.name.split(".")[0]
        raise InputError(
            f"{where}: family {family!r} needs the package {package!r}, which is not installed"
        ) from error
