"""Read and check a config, so that mistakes are found before the first job starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from attrib_core.common.errors import InputError
from attrib_core.common.validation import validate
from attrib_core.config import checks
from attrib_core.config.schema import Config


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
        return check(given or {})
    values = read_yaml(Path(given))
    try:
        return check(values)
    except InputError as error:
        raise InputError(f"{given}: {error}") from None


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


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, of which PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; ConstructorError for a duplicate key."""
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"duplicate key {key.value!r}", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file as a mapping, empty for an empty file; InputError for a duplicate key."""
    try:
        values = yaml.load(path.read_text("utf-8"), _UniqueKeyLoader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a config file in YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds {type(values).__name__}, expected keys and values")
    return values
