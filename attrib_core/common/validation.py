"""Check values that a user wrote against a pydantic model; what is wrong becomes one line."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from attrib_core.common.errors import InputError, close_matches, cut, printable, shown

Model = TypeVar("Model", bound=pydantic.BaseModel)
BEYOND = 1 << 31
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_SUBJECT = re.compile(r"^(Input|String|Dictionary|List|Tuple|Value) ")


def validate(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """Check values and return them as an instance of the model.

    They are read strictly, as JSON: a string is not a number and a bool is not an integer, but a list is accepted for a
    tuple and an integer for a float. `where` is put before the keys. Raises InputError for the first error: key, value,
    and what would be right; also for an integer of `BEYOND` or more, except for a seed.
    """
    plain = _plain(values)
    text = json.dumps(plain, default=str)
    try:
        found = model.model_validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise InputError(_line(model, error, where)) from None
    _check_integers(plain, where)
    return found


def _check_integers(value: Any, path: str) -> None:
    """Raise InputError for an integer of 2^31 or more, which no count or size of this project can be."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _check_integers(inner, f"{path}.{key}" if path else str(key))
    elif type(value) is int and abs(value) >= BEYOND and path.rpartition(".")[2] != "seed":
        raise InputError(f"{path}: {shown(value)} is wrong, it should be below {BEYOND}")


def _plain(value: Any) -> Any:
    """Return plain values with "1e-5" as a number: PyYAML reads it as a string, unlike YAML 1.2."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


def _line(model: type[pydantic.BaseModel], error: pydantic.ValidationError, where: str) -> str:
    first = error.errors(include_url=False)[0]
    location = [cut(printable(str(part))) for part in first["loc"] if part != "[key]"]
    path = ".".join(([where] if where else []) + location) or "config"
    kind, value = first["type"], first["input"]
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        return f"{path}: no such key (value {shown(value)}), {close_matches(location[-1], known)}"
    if kind == "json_invalid":  # the text is from json.dumps, so that only this can be wrong
        return f"{path}: {shown(value)} has half of an emoji; expected whole characters"
    if kind == "missing":
        return f"{path}: this key is needed, and it is missing"
    if kind == "value_error":
        return f"{path}: {shown(value)}: {first['msg'].removeprefix('Value error, ')}"
    return f"{path}: {shown(value)} is wrong, it {_SUBJECT.sub('', first['msg'])}"


def _keys_at(model: type[pydantic.BaseModel], location: list[str]) -> list[str]:
    """Return the keys that a model knows at a location of nested models and dictionaries."""
    inner: Any = model
    for part in location:
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
            inner = inner.model_fields[part].annotation
        elif typing.get_origin(inner) is dict:
            inner = typing.get_args(inner)[1]
    if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
        return list(inner.model_fields)
    return []
