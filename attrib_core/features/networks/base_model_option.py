"""The option `base_model` of encoders that use a base model: a section with a family and its options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrib_core.common import families
from attrib_core.common.errors import InputError

KEY = "base_model"


def split(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return family and options of a section; raise InputError if it names no family."""
    if not isinstance(section.get("family"), str):
        raise InputError(f"{KEY}.family: this key is needed, and it is missing")
    return families.split(section)


def checked(section: Mapping[str, Any]) -> dict[str, Any]:
    """Check a section and fill in its defaults."""
    split(section)
    return families.complete("base_models", section, KEY)


def files(section: Mapping[str, Any]) -> list[Path]:
    """Return the files of the base model; raise InputError if weights are missing."""
    family, options = split(section)
    module = families.module("base_models", family, KEY)
    try:
        return list(module.files(**options)) if hasattr(module, "files") else []
    except InputError as error:
        raise error.under(KEY) from None
