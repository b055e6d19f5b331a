"""Read YAML from outside: mistakes are one line each, with file and line, and never a traceback or a silent change.

PyYAML takes the last of two equal keys, builds aliases that contain themselves, reads 0777 as 511 and 1:30 as 90, and
fails with various errors where a text does not fit its tag, such as a date that does not exist.
"""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import yaml

from attrib_core.common.errors import LONGEST_REASON, InputError, cut, printable, reason, shown
from attrib_core.storage import text_files

LONGEST = 1 << 24
"""Bytes of the longest file."""
DEEPEST = 50
"""Levels of nesting; a config has up to 8."""
MOST_VALUES = 100_000
"""Values, each counted as often as aliases repeat it."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DATE, _MERGE = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge"
_OTHER_BASE = re.compile(r":|^[-+]?0[0-7_]+$")
"""Numbers in base 60 and 8, in the forms of YAML 1.1."""


def read(path: Path, *, expected: str = "config file in YAML") -> dict[str, Any]:
    """Read a file with keys and values, as YAML or JSON; an empty file is an empty dictionary.

    Raises InputError, with file and line, for a file that cannot be read, two documents, a key twice, an alias of
    itself or too many of them, too many levels, a tag of another language, a date that does not exist, numbers that
    YAML 1.1 reads in another base, and texts that cannot be stored.
    """
    where = printable(str(path))
    text = text_files.read(path, expected=expected, limit=LONGEST)
    try:
        values = _parse(text)
    except InputError as error:
        raise InputError(f"{where}: not readable as YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{where}: holds {type(values).__name__}, expected keys and values")
    return values


def value(text: str) -> Any:
    """Return the value that a text is in YAML, or the text itself if it is none."""
    try:
        return _parse(text)
    except InputError:
        return text


def _parse(text: str) -> Any:
    """Parse YAML; InputError, with the reason alone."""
    if (values := _json(text)) is not None:
        return values
    try:
        return yaml.load(text, _Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"line {line}: the character {shown(text[error.position])}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, [error.context, error.problem]))
        where = f"line {mark.line + 1}: " if mark else ""
        raise InputError(where + cut(" ".join(printable(said).split()), LONGEST_REASON)) from None
    except RecursionError:
        raise InputError(f"more than {DEEPEST} levels of nesting") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InputError(reason(error)) from None


class _Loader(yaml.SafeLoader):
    """A loader that refuses what PyYAML takes without a word. Checks are made on nodes, before any value is built."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._unfinished: list[str | None] = []  # anchors of the nodes around the current one
        self._sizes: dict[int, int] = {}  # values in each node, with those that aliases repeat

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; ComposerError for an alias of itself, and for too many levels or values."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._unfinished:
                raise _error(f"{event.anchor!r} contains an alias of itself", event.start_mark)
            return super().compose_node(parent, index)
        self._unfinished.append(getattr(event, "anchor", None))
        if len(self._unfinished) > DEEPEST:
            raise _error(f"more than {DEEPEST} levels of nesting", event.start_mark)
        node = super().compose_node(parent, index)
        self._unfinished.pop()
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for one in inner for child in (one if isinstance(one, tuple) else (one,))]
        self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in children)
        if self._sizes[id(node)] > MOST_VALUES:
            raise _error(f"more than {MOST_VALUES} values", event.start_mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Compose a value; ComposerError for a text that cannot be stored, and a number in another base."""
        node = super().compose_scalar_node(anchor)
        try:
            text_files.check_characters(node.value)
        except InputError as error:
            raise _error(str(error), node.start_mark) from None
        if node.style is None and node.tag in _NUMBERS and _OTHER_BASE.search(node.value):
            number = self.construct_object(node)
            raise _error(
                f"{node.value} is {number} in YAML; write {number}, or {node.value!r} in quotes if it is a text",
                node.start_mark,
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose keys and values; ComposerError for a key that is there twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise _error(f"duplicate key {shown(key.value)}", key.start_mark)
                seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value, a date as text; ConstructorError for what does not fit its tag."""
        try:
            found = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError, IndexError):
            what = "date" if node.tag == _DATE else node.tag.removeprefix("tag:yaml.org,2002:")
            raise _error(
                f"{cut(str(node.value))} is no {what}; write it in quotes if it is a text", node.start_mark
            ) from None
        return str(found) if isinstance(found, datetime.date) else found


def _error(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _json(text: str) -> dict[str, Any] | None:
    """Parse an object in JSON, as Snakemake does before it tries YAML; None for other texts.

    YAML would refuse its tabs, and take an emoji in two escapes for two halves.
    """
    if not text.lstrip().startswith("{"):
        return None
    try:
        values: dict[str, Any] = json.loads(text, object_pairs_hook=text_files.unique_keys)
    except InputError:
        raise
    except (ValueError, RecursionError):
        return None
    level: list[Any] = [values]
    for _ in range(DEEPEST + 1):
        for one in level:
            if isinstance(one, str):
                text_files.check_characters(one)
        inner = [
            [*one, *one.values()] if isinstance(one, dict) else one
            for one in level
            if not isinstance(one, str)
        ]
        level = [value for one in inner if isinstance(one, list) for value in one]
    if level:
        raise InputError(f"more than {DEEPEST} levels of nesting")
    return values
