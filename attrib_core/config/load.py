"""Read and check a config: every mistake is found before the first job starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from attrib_core.common.errors import InputError
from attrib_core.common.validation import validated
from attrib_core.config import checks
from attrib_core.config.schema import WITHOUT_EFFECT, Config

__all__ = ["WITHOUT_EFFECT", "Config", "load_config", "plain", "read_yaml", "stated_config"]


def load_config(given: str | Path | Mapping[str, Any] | None = None) -> Config:
    """The config from a YAML file or a mapping; what is not given has its default.

    Options of families are checked and their defaults filled in. Nothing is trained, loaded or
    rendered for that. Raises InputError, one line, for the first thing that is wrong.
    """
    return _read(given, _checked)


def stated_config(given: str | Path | Mapping[str, Any] | None = None) -> Config:
    """The config as `load_config` reads it, but for the source of images, which need not be there."""
    return _read(given, _stated)


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


def _checked(values: Mapping[str, Any]) -> Config:
    config = _stated(values)
    checks.source_rows(plain(config))
    return config


def _stated(values: Mapping[str, Any]) -> Config:
    config = validated(Config, checks.with_presets(values))
    checks.between_keys(config)
    filled = checks.with_parts(checks.with_options(config.model_dump(mode="json")))
    checks.stacks(filled)
    checks.prompt_lists(config)
    return validated(Config, filled)


def plain(config: Config) -> dict[str, Any]:
    """The config as plain values (as JSON has them), for `params` of the workflow."""
    return config.model_dump(mode="json")


class _Strict(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; PyYAML takes the last one and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, after a look for keys that stand in it twice."""
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; an empty file is an empty one. A key that stands twice is an error."""
    try:
        values = yaml.load(path.read_text("utf-8"), _Strict)
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
