"""Render the page: the HTML template and its filters."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from attrib_core.report import formatting
from attrib_core.report.findings import verdicts
from attrib_core.report.sections.thumbnails import SIDE

CONTENTS = (
    ("shown", "Results"),
    ("run", "Run"),
    ("retrieval", "Retrieval"),
    ("curve", "Recall over K"),
    ("breakdown", "By prompt and category"),
    ("gallery", "Gallery"),
    ("influence", "Influence"),
    ("similarities", "Similarities"),
    ("mapper", "Mapper"),
    ("pool", "Pool and index"),
    ("times", "Time"),
    ("images", "Images and licences"),
)
REASONS = {
    "exemplar": "is an exemplar itself",
    "same_subject": "shows the subject of an object set",
    "same_style": "has the style of a style set",
    "near_duplicate": "near duplicate of an exemplar",
}


def render(context: Mapping[str, Any]) -> str:
    """Return the page as HTML. Raises UndefinedError for a name that the context lacks."""
    folder = resources.files("attrib_core.report")
    sources = {name: folder.joinpath(name).read_text("utf-8") for name in ("page.html", "style.css")}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "count": formatting.count,
        "percent": formatting.percent,
        "seconds": formatting.seconds,
        "memory": formatting.memory,
        "plain": formatting.plain,
        "points": formatting.points,
        "points_interval": formatting.points_interval,
        "p_value": formatting.p_value,
        "listing": formatting.listing,
        "plural": formatting.plural,
        "mapper": formatting.mapper,
        "groups": _groups,
    }
    fixed = dict(
        css=Markup(sources["style.css"]), reasons=REASONS, image_side=SIDE, contents=CONTENTS,
        sections=_sections(context), rules=verdicts,
    )  # fmt: skip
    return environment.get_template("page.html").render(fixed | dict(context))


def _sections(context: Mapping[str, Any]) -> set[str]:
    """The sections of the page, without those that the run has no data for."""
    absent = {
        "gallery": not context["gallery"].sets,
        "mapper": not context["plots"]["mapper"],
        "times": not context["times"],
    }
    return {name for name, _ in CONTENTS if not absent.get(name)}


def _groups(rows: Iterable[Any], *names: str) -> Iterator[list[Any]]:
    """Yield runs of consecutive rows with equal values of some keys."""

    def key(row: Any) -> tuple[Any, ...]:
        return tuple(row[name] for name in names)

    for _, group in itertools.groupby(rows, key):
        yield list(group)
