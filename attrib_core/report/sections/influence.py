"""What the report says of soft influence: forms side by side, pools of other sizes, "none of these"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrib_core.attribution.metrics.metrics_table import Metrics, Row
from attrib_core.common.constants import KINDS
from attrib_core.report import formatting

COLUMNS = (  # name in the table, heading, how it is written, whether with its interval
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
    ("none_said_held_out", "Taken out of it", formatting.share, True),
    ("none_said_control", "Control", formatting.share, True),
    ("none_auc", "Pairs told apart", formatting.share, True),
)
NAMES = {
    "pool_aware": "pool-aware",
    "published": "published",
    "published_whole_pool": "published, whole pool",
}
NEVER_NONE = ("published", "published_whole_pool")
FEW = 10


def forms(rows: Sequence[Row]) -> list[str]:
    """The forms of the run; soft scores are of the first."""
    return list(dict.fromkeys(row["form"] for row in rows))


def of_form(rows: Sequence[Row], form: str) -> list[Row]:
    """The rows of a form; of a table that knows pool shares those of the whole pool."""
    return [row for row in rows if row["form"] == form and row.get("pool_share", 1.0) == 1.0]


def panels(reliability: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of the table `reliability` by name of a panel: the shares of each form, what the first displays."""
    names = forms(reliability)
    pairs = [(NAMES[form], form, "shares") for form in names] + [
        ("as displayed", form, "displayed") for form in names[:1]
    ]
    return {
        name: [row for row in of_form(reliability, form) if row["judged"] == judged]
        for name, form, judged in pairs
    }


def table(
    rows: Sequence[Row], metrics: Metrics, columns: Sequence[Any] = COLUMNS
) -> tuple[list[str], list[dict[str, Any]]]:
    """Headings, and one line an encoder, mapper, kind and form of the test split; `cells` are texts."""
    lines = []
    for encoder, mapper, kind, form, own in _groups(rows, metrics):
        found = {row["metric"]: row for row in own if row["pool_share"] == 1.0}
        cells = [_cell(found.get(name), write, interval) for name, _, write, interval in columns]
        first = next(iter(found.values()))
        lines.append(
            dict(
                encoder=encoder, mapper=mapper, kind=kind, form=NAMES[form], cells=cells,
                n_queries=first["n_queries"], n_models=first["n_models"],
            )
        )  # fmt: skip
    return [heading for _, heading, _, _ in columns], lines


def none_table(rows: Sequence[Row], metrics: Metrics) -> tuple[list[str], list[dict[str, Any]]]:
    """`table` of "none of these", of the forms that can say it: lines of the others are 0 and infinity."""
    return table([row for row in rows if row["form"] not in NEVER_NONE], metrics, NONE_COLUMNS)


def pools(rows: Sequence[Row], metrics: Metrics) -> tuple[list[str], list[dict[str, Any]]]:
    """Likelihood on parts of the pool: headings, largest first, and one line as in `table`."""
    shares = sorted({row["pool_share"] for row in rows}, reverse=True)
    lines = []
    for encoder, mapper, kind, form, own in _groups(rows, metrics):
        found = {row["pool_share"]: row["value"] for row in own if row["metric"] == "negative_log_likelihood"}
        cells = [formatting.plain(found[share]) for share in shares]
        lines.append(dict(encoder=encoder, mapper=mapper, kind=kind, form=NAMES[form], cells=cells))
    return ["whole pool" if share == 1 else f"{formatting.percent(share)} of it" for share in shares], lines


def verdict(rows: Sequence[Row], metrics: Metrics) -> str:
    """Which form is better, where, and how far the number of models lets this be said."""
    names = forms(rows)
    groups: dict[tuple[str, str, str], dict[str, Row]] = {}
    for encoder, mapper, kind, form, own in _groups(rows, metrics):
        for row in own:
            if row["metric"] == "negative_log_likelihood" and row["pool_share"] == 1.0:
                groups.setdefault((encoder, mapper, kind), {})[form] = row
    if not groups:
        return "The test split has no exemplar sets, so nothing is judged."
    several = {(encoder, mapper) for encoder, mapper, kind in groups if kind != "all"}
    single = [place for place in groups if place[2] != "all" or place[:2] not in several]
    parts = []
    for other in names[1:]:
        pairs = [(place, found[names[0]], found[other]) for place, found in groups.items() if place in single]
        better = [place for place, first, second in pairs if first["value"] < second["value"]]
        apart = [place for place, first, second in pairs if _above(second["ci_low"], first["ci_high"])]
        parts.append(
            f"The {NAMES[names[0]]} form has the higher likelihood in {len(better)} of {len(pairs)} lines of one kind"
            f" of sets against the {NAMES[other]} one; in {len(apart)} of them the intervals do not overlap."
        )
        impossible = [
            row["value"]
            for *_, form, own in _groups(rows, metrics)
            for row in own
            if (row["metric"], form, row["pool_share"]) == ("impossible", other, 1.0) and row["value"] > 0
        ]
        if impossible:
            parts.append(
                f"In {formatting.plural(len(impossible), 'line')} the {NAMES[other]} form gives up to"
                f" {formatting.percent(max(impossible))} of the images an exemplar with no influence at all, so its"
                " likelihood there is 0."
            )
    fewest = min((row["n_models"] for found in groups.values() for row in found.values()), default=0)
    if 0 < fewest < FEW:
        parts.append(
            f"Some lines rest on {formatting.plural(fewest, 'model')}: what their intervals leave open is not known."
        )
    return " ".join(parts)


def _groups(rows: Sequence[Row], metrics: Metrics) -> list[tuple[str, str, str, str, list[Row]]]:
    """(encoder, mapper, kind, form, rows of the test split); one kind where all sets are of one."""
    found = []
    for encoder in metrics.encoders:
        for mapper in metrics.mappers:
            place = (encoder, mapper, "test")
            own = [row for row in rows if (row["encoder"], row["mapper"], row["split"]) == place]
            kinds = [kind for kind in ("all", *KINDS) if any(row["kind"] == kind for row in own)]
            for kind in kinds[1:] if len(kinds) == 2 else kinds:
                for form in forms(own):
                    of = [row for row in own if (row["kind"], row["form"]) == (kind, form)]
                    found.append((encoder, mapper, kind, form, of))
    return found


def _cell(row: Row | None, write: Any, interval: bool) -> tuple[str, str]:
    """A value and its interval as texts."""
    if row is None:
        return formatting.NONE, ""
    if not interval or row["ci_low"] is None:
        return write(row["value"]), ""
    return write(row["value"]), f"[{write(row['ci_low'])}, {write(row['ci_high'])}]"


def _above(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low > high
