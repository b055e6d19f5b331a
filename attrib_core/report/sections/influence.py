"""Tables of calibrated influence: kinds of calibrators, "none of these", parts of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from attrib_core.attribution.metrics.metrics_table import Metrics, Row
from attrib_core.common.constants import KINDS
from attrib_core.report import formatting
from attrib_core.report.sections.subgroups import FEW

COLUMNS = (  # metric, heading, format, whether with its interval
    ("negative_log_likelihood", "NLL", formatting.plain, True),
    ("expected_calibration_error", "ECE", formatting.share, True),
    ("brier", "Brier", formatting.plain, False),
    ("exemplar_mass", "Exemplar mass", formatting.share, False),
    ("tail_mass", "Tail mass", formatting.share, False),
)
NONE_COLUMNS = (
    ("mixture_negative_log_likelihood", "Mixture NLL", formatting.plain, True),
    ("mixture_expected_calibration_error", "Displayed ECE", formatting.share, True),
    ("mixture_brier", "Displayed Brier", formatting.plain, False),
    ("none_said", "Exemplars in the pool", formatting.share, True),
    ("none_said_held_out", "Exemplars held out", formatting.share, True),
    ("none_said_control", "Control", formatting.share, True),
    ("none_auc", "AUC", formatting.share, True),
)
CALIBRATORS = {
    "pool_aware": "pool-aware",
    "published": "published",
    "published_whole_pool": "published, whole pool",
}
WITHOUT_NONE = ("published", "published_whole_pool")
"""Calibrators without "none of these"."""
NLL = "negative_log_likelihood"


class Group(NamedTuple):
    """The rows of the test split of one encoder, mapper, kind of sets and kind of calibrator."""

    encoder: str
    mapper: str
    kind: str
    calibrator: str
    rows: list[Row]

    @property
    def whole_pool(self) -> dict[str, Row]:
        """The rows evaluated on the whole pool, by metric."""
        return {row["metric"]: row for row in self.rows if row["pool_share"] == 1.0}

    def line(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Return a line of a table of the page."""
        names = dict(encoder=self.encoder, mapper=self.mapper, kind=self.kind)
        return names | dict(calibrator=CALIBRATORS[self.calibrator], cells=cells)


def calibrators(rows: Sequence[Row]) -> list[str]:
    """Return the kinds of calibrators of a run; soft scores are from the first."""
    return list(dict.fromkeys(row["form"] for row in rows))


def rows_of(rows: Sequence[Row], calibrator: str) -> list[Row]:
    """Return the rows of a kind of calibrator, evaluated on the whole pool."""
    return [row for row in rows if row["form"] == calibrator and row.get("pool_share", 1.0) == 1.0]


def panels(reliability: Sequence[Row]) -> dict[str, list[Row]]:
    """Return rows of `reliability` by title of the panel: shares of each calibrator, what the first displays."""
    names = calibrators(reliability)
    panels = [(CALIBRATORS[name], name, "shares") for name in names]
    panels += [("as displayed", name, "displayed") for name in names[:1]]
    return {
        title: [row for row in rows_of(reliability, name) if row["judged"] == judged]
        for title, name, judged in panels
    }


def table(
    rows: Sequence[Row], metrics: Metrics, columns: Sequence[Any] = COLUMNS
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return headings, and one line for each encoder, mapper, kind and calibrator of the test split."""
    lines = []
    for group in _groups(rows, metrics):
        found = group.whole_pool
        cells = [_cell(found.get(name), write, interval) for name, _, write, interval in columns]
        first = next(iter(found.values()))
        lines.append(group.line(cells) | dict(n_queries=first["n_queries"], n_models=first["n_models"]))
    return [heading for _, heading, _, _ in columns], lines


def none_table(rows: Sequence[Row], metrics: Metrics) -> tuple[list[str], list[dict[str, Any]]]:
    """Return `table` of "none of these" for the calibrators that have it."""
    return table([row for row in rows if row["form"] not in WITHOUT_NONE], metrics, NONE_COLUMNS)


def pools(rows: Sequence[Row], metrics: Metrics) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the likelihood on parts of the pool, largest first: headings, and lines as in `table`."""
    shares = sorted({row["pool_share"] for row in rows}, reverse=True)
    lines = []
    for group in _groups(rows, metrics):
        found = {row["pool_share"]: row["value"] for row in group.rows if row["metric"] == NLL}
        lines.append(group.line([formatting.plain(found[share]) for share in shares]))
    return ["whole pool" if share == 1 else f"{formatting.percent(share)} of it" for share in shares], lines


def summary(rows: Sequence[Row], metrics: Metrics) -> str:
    """Return a paragraph: in how many lines of one kind of sets the first calibrator has the higher likelihood."""
    groups = [group for group in _groups(rows, metrics) if NLL in group.whole_pool]
    if not groups:
        return "The test split has no exemplar sets, so calibration is not evaluated."
    by_kind = {group[:2] for group in groups if group.kind != "all"}
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for group in groups:
        if group.kind != "all" or group[:2] not in by_kind:
            lines.setdefault(group[:3], {})[group.calibrator] = group.whole_pool[NLL]
    first, *others = calibrators(rows)
    sentences = []
    for other in others:
        pairs = [(line[first], line[other]) for line in lines.values()]
        better = sum(one["value"] < two["value"] for one, two in pairs)
        apart = sum(_above(two["ci_low"], one["ci_high"]) for one, two in pairs)
        sentences.append(
            f"The {CALIBRATORS[first]} calibrator has a higher likelihood than the {CALIBRATORS[other]} one in"
            f" {better} of {len(pairs)} lines of one kind of sets; in {apart} of them the intervals do not overlap."
        )
        own = [group.whole_pool for group in groups if group.calibrator == other]
        shares = [found["impossible"]["value"] for found in own if "impossible" in found]
        impossible = [share for share in shares if share > 0]
        if impossible:
            sentences.append(
                f"In {formatting.plural(len(impossible), 'line')} the {CALIBRATORS[other]} calibrator gives up to"
                f" {formatting.percent(max(impossible))} of the images an exemplar with no influence, so its likelihood"
                " is 0 there."
            )
    fewest = min(group.whole_pool[NLL]["n_models"] for group in groups)
    if 0 < fewest < FEW:
        sentences.append(f"Some lines have only {formatting.plural(fewest, 'model')}, which decide nothing.")
    return " ".join(sentences)


def _groups(rows: Sequence[Row], metrics: Metrics) -> list[Group]:
    """All groups of the test split; a single kind where all sets are of one."""
    groups = []
    for encoder in metrics.encoders:
        for mapper in metrics.mappers:
            where = (encoder, mapper, "test")
            own = [row for row in rows if (row["encoder"], row["mapper"], row["split"]) == where]
            kinds = [kind for kind in ("all", *KINDS) if any(row["kind"] == kind for row in own)]
            for kind in kinds[1:] if len(kinds) == 2 else kinds:
                for calibrator in calibrators(own):
                    found = [row for row in own if (row["kind"], row["form"]) == (kind, calibrator)]
                    groups.append(Group(encoder, mapper, kind, calibrator, found))
    return groups


def _cell(row: Row | None, write: Any, interval: bool) -> tuple[str, str]:
    """A value and its interval as text."""
    if row is None:
        return formatting.NONE, ""
    if not interval or row["ci_low"] is None:
        return write(row["value"]), ""
    return write(row["value"]), f"[{write(row['ci_low'])}, {write(row['ci_high'])}]"


def _above(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low > high
