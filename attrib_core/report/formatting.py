"""Format numbers and names the same way everywhere in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrib_core.attribution.metrics.metrics_table import TUNED, trained_on
from attrib_core.common.constants import UNTUNED
from attrib_core.runtime.durations import duration

THIN = "\u202f"
MINUS = "\u2212"
NONE = "\u2013"


def percent(value: float | None, unit: bool = True, decimals: int = 1) -> str:
    """Format a share in [0, 1] as percent; small non-zero values as "< 0.1"."""
    if value is None:
        return NONE
    sign = THIN + "%" if unit else ""
    least = 10.0**-decimals
    if 0 < abs(value) < least / 200:
        return f"<{THIN}{least:g}{sign}"
    return f"{100 * value + 0.0:.{decimals}f}".replace("-", MINUS) + sign


def share(value: float | None) -> str:
    """Format a share as percent without the sign, for tables whose caption has the unit."""
    return percent(value, unit=False)


def rank(value: float) -> str:
    """Format a position in a ranking; below 100 with the halves that come from ties and even medians."""
    return f"{value:,.{1 if value < 100 else 0}f}".replace(",", THIN).removesuffix(".0")


def interval(low: float | None, high: float | None) -> str:
    """Format an interval of shares in percent, "[12.3, 45.6]"; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"[{share(low)}, {share(high)}]"


def row_share(row: Mapping[str, Any]) -> str:
    """Format the value of a row and its interval, "34.5 % [28.0, 41.2]"."""
    return f"{percent(row['value'])} {interval(row['ci_low'], row['ci_high'])}".strip()


def points(value: float, decimals: int = 1) -> str:
    """Format a signed difference of shares in percentage points, "+7.1"."""
    return f"{'+' if value >= 0 else MINUS}{abs(100 * value):.{decimals}f}"


def points_interval(low: float | None, high: float | None, decimals: int = 1) -> str:
    """Format the interval of a difference, "[+4.1, +9.8]"; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"[{points(low, decimals)}, {points(high, decimals)}]"


def p_value(value: float | None) -> str:
    """Format a p-value with three decimals, "<0.001" below that."""
    if value is None:
        return NONE
    return f"<{THIN}0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int) -> str:
    """Format an integer with thin spaces between thousands."""
    return f"{value:,}".replace(",", THIN)


def ratio(value: float) -> str:
    """Format a factor with two digits: "1.3", "12", "160"."""
    if value < 10:
        return f"{value:.1f}"
    if value < 100:
        return f"{value:.0f}"
    return count(int(float(f"{value:.2g}")))


def seconds(value: float) -> str:
    """Format a duration in the largest unit that fits: "0.4 s", "5 min 12 s", "3 h 05 min"."""
    return duration(value, space=THIN)


def memory(megabytes: float | None) -> str:
    """Format an amount of memory: "1,270 MB", "<1 MB", empty where it was not measured."""
    if megabytes is None:
        return ""
    return f"<1{THIN}MB" if megabytes < 1 else f"{count(round(megabytes))}{THIN}MB"


def plain(value: float) -> str:
    """Format a number that is not a share, with three decimals."""
    return "\u221e" if math.isinf(value) else f"{value:.3f}"


def plural(number: int, noun: str, many: str | None = None) -> str:
    """Format a count with its noun: "1 set", "12 sets"."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def listing(items: Sequence[str]) -> str:
    """Join items: "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def metric(name: str, k: int | None) -> str:
    """Return the common name of a metric: "Recall@10", "mAP"."""
    if name == "recall_at_k":
        return f"Recall@{k}"
    if name == "success_at_k":
        return f"Success@{k}"
    return {"mean_average_precision": "mAP", "median_rank": "Median rank"}.get(name, name.replace("_", " "))


def mapper(name: str) -> str:
    """Return a mapper's name for readers: "untuned", "tuned", "object mapper" for "linear-object".

    "linear-both" is the "joint mapper", "mlp-shared-both" the "shared mlp joint mapper".
    """
    if name in (UNTUNED, TUNED):
        return name
    kind = trained_on(name)
    words = [word for word in reversed(name.removesuffix(kind).split("-")) if word not in ("", "linear")]
    return " ".join([*words, "joint" if kind == "both" else kind, "mapper"])


def features(encoder: str, name: str) -> str:
    """Describe features: "the untuned pixel features", "the pixel features of the object mapper"."""
    if name == UNTUNED:
        return f"the untuned {encoder} features"
    return f"the {encoder} features of the {mapper(name)}"
