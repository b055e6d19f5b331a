"""The look of all plots: colours, matplotlib's settings, and one style for each series."""

from __future__ import annotations

from typing import Any

INK, MUTED, RULE, PAPER = "#1d2126", "#626a73", "#d5d9de", "#ffffff"
CONTROL, UNTUNED_COLOR, TUNED_COLOR, EXEMPLAR = "#7b838c", "#2b6cb0", "#c2410c", "#0b7a75"
CSS_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    CONTROL: "control",
    UNTUNED_COLOR: "untuned",
    TUNED_COLOR: "tuned",
    EXEMPLAR: "exemplar",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "attrib",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text is measured the same everywhere
    "font.size": 11.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": RULE,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def _series(label: str, color: str, marker: str, face: str) -> dict[str, Any]:
    return dict(label=label, color=color, lw=1.6, marker=marker, ms=6.2, mfc=face, mew=1.5)


LINES: dict[str, dict[str, Any]] = {
    "control": _series("base model (control)", CONTROL, "s", PAPER),
    "untuned": _series("customized, untuned features", UNTUNED_COLOR, "o", UNTUNED_COLOR),
    "tuned": _series("customized, tuned features", TUNED_COLOR, "D", TUNED_COLOR),
    "chance": dict(label="chance", color=INK, lw=1.2, ls=(0, (1, 1.5))),
    "ceiling": dict(label="ceiling", color=INK, lw=1.2),
    "distractors": dict(label="distractors", color=RULE, lw=10, solid_capstyle="butt"),
    "diagonal": dict(label="perfectly calibrated", color=INK, lw=1.2, ls=(0, (4, 3))),
    "chosen": dict(label="chosen", color=INK, ls="", marker="o", ms=9, mfc="none", mew=1.4),
    "chosen penalty": dict(label="chosen penalty", color=TUNED_COLOR, lw=2.0),
    "other penalties": dict(label="other penalties", color=CONTROL, lw=1.2),
    "untuned mAP": dict(label="untuned", color=INK, lw=1.2, ls=(0, (1, 1.5))),
}
"""Keywords of matplotlib's lines by series: plots and legends take them from here."""
