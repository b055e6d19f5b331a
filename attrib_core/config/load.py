"""Read and check a config, so that mistakes are found before the first job starts."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError, reason, shown_path
from attrib_core.common.validation import validate
from attrib_core.config import checks
from attrib_core.config.schema import Config
from attrib_core.storage import yaml_files


def load_config(given: str | Path | Mapping[str, Any] | None = None) -> Config:
    """Read the config from a YAML file or a mapping; missing keys have their defaults.

    Options of families are checked and their defaults filled in, without loading any weights or
    images. Raises InputError, one line, for the first mistake.
    """
    return _read(given, _check_all)


def load_config_without_source(given: str | Path | Mapping[str, Any] | None = None) -> Config:
    """Read the config like `load_config`, without checking the source of images, which may be missing."""
    return _read(given, _check_without_source)


def _read(
    given: str | Path | Mapping[str, Any] | None, check: Callable[[Mapping[str, Any]], Config]
) -> Config:
    if not isinstance(given, str | Path):
        return _checked(given or {}, check)
    values = yaml_files.read(Path(given))
    try:
        return _checked(values, check)
    except InputError as error:
        raise InputError(f"{given}: {error}") from None


def _checked(values: Mapping[str, Any], check: Callable[[Mapping[str, Any]], Config]) -> Config:
    try:
        return check(values)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise InputError(f"no such file or folder: {shown_path(error.filename)}: {reason(error)}") from None


def _check_all(values: Mapping[str, Any]) -> Config:
    config = _check_without_source(values)
    checks.check_source(plain(config))
    return config


def _check_without_source(values: Mapping[str, Any]) -> Config:
    config = validate(Config, checks.expand_presets(values))
    checks.check_across_keys(config)
    filled = checks.fill_part_sizes(checks.fill_options(config.model_dump(mode="json")))
    checks.check_stacks(filled)
    checks.check_prompt_lists(config)
    return validate(Config, filled)


def plain(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON values, for `params` of the workflow."""
    return config.model_dump(mode="json")
