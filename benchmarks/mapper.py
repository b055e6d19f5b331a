"""Measure the gain of tuned over untuned features across seeds, from finished runs of one config.

    python benchmarks/mapper.py results/demo results/seed-2307 results/seed-2308

For each encoder, mapper and split, on sets of the kind that the mapper is for: the gain of tuned over untuned
features in percentage points, Recall@K and mAP, all prompts together. For each run with its 95 % interval over models
and prompts, as in its table `comparisons`; then the mean over runs, with a 95 % interval in which the run is the unit
of sampling: Student's t, mean +- t(n - 1) s / sqrt(n), with s the standard deviation of the runs' gains. It includes
the variation of models and of the noise in training, synthesis and tuning from seed to seed, and assumes normally
distributed gains. With three runs t is 4.3 and with two 12.7, so the interval is wide, as it should be: a run is one
observation. Resampling three runs with replacement would give too narrow an interval.

Three gains may agree by chance: s of three is below half of what it estimates one time in five. Each run has its own
models, so a gain cannot vary less between runs than its standard error within one. So s^2 is not less than the mean
square of these errors, each half of a run's interval divided by its t.

On validation the best of many mappers was selected, so that its gain is biased upwards; the claim is on test.
Runs whose sets are drawn from the same images are different samples, not different populations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from scipy import stats

from attrib_core.common.errors import InputError, close_matches
from attrib_core.storage import tables

SPLITS = ("validation", "test")
METRICS = ("recall_at_k", "mean_average_precision")
LEVEL = 0.95
COLUMNS = ("encoder", "comparison", "mapper", "condition", "split", "kind", "seen", "prompt_kind", "metric", "k",
           "difference", "ci_low", "ci_high", "df", "n_models")  # fmt: skip
Key = tuple[str, str, str, str, str]
"""Kind of sets, encoder, mapper, split, metric."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Print the table; a row a kind of sets, encoder, mapper, split and metric."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RESULTS", help="folders of finished runs")
    parser.add_argument("--k", type=int, default=10, help="of Recall@K; default: %(default)s")
    options = parser.parse_args(arguments)
    names = [path.resolve().name for path in options.runs]
    if len(set(names)) < len(names):
        raise InputError(f"RESULTS: {max(names, key=names.count)!r} is there twice; expected different runs")
    found = {name: _gains(path, options.k) for name, path in zip(names, options.runs, strict=True)}
    rows = list(_rows(found))
    for line in _lines(rows, names, options.k):
        print(line)
    return rows


def over_runs(gains: Sequence[float], errors: Sequence[float] = ()) -> tuple[float, float, float]:
    """Mean and the ends of Student's interval, the runs as the sample; NaN for the ends of one run.

    `errors` are the standard errors of the gains within their runs; NaN, which is that of one model, is left out.
    """
    mean = float(np.mean(gains))
    if len(gains) < 2:
        return mean, float("nan"), float("nan")
    within = [error**2 for error in errors if not np.isnan(error)]
    variance = max(float(np.var(gains, ddof=1)), float(np.mean(within)) if within else 0.0)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1) * np.sqrt(variance / len(gains)))
    return mean, mean - half, mean + half


def _gains(run: Path, k: int) -> dict[Key, dict[str, Any]]:
    """Rows of the table `comparisons` of a run that say what tuning gained, by what they are about."""
    path = run / "comparisons.parquet"
    if not path.is_file():
        raise InputError(
            f"{run}: no comparisons.parquet, expected the folder of a finished run: results/NAME"
        )
    wanted = {"comparison": "mapper", "condition": "customized", "seen": "all", "prompt_kind": "all"}
    rows = [
        row
        for row in tables.read(path, "comparisons", COLUMNS).to_pylist()
        if all(row[name] == value for name, value in wanted.items())
        and row["split"] in SPLITS
        and row["metric"] in METRICS
        and row["mapper"].rpartition("-")[2] in (row["kind"], "both")
    ]
    if not rows:
        raise InputError(f"{run}: no mapper was trained, expected a run with one")
    ks = {row["k"] for row in rows if row["k"] is not None}
    if k not in ks:
        raise InputError(
            f"--k: {k} is not among the cut-offs of {run}, {close_matches(str(k), map(str, ks))}"
        )
    return {
        (row["kind"], row["encoder"], row["mapper"], row["split"], row["metric"]): row
        for row in rows
        if row["k"] in (None, k)
    }


def _rows(found: dict[str, dict[Key, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    known = dict.fromkeys(key for one in found.values() for key in one)
    order = {split: number for number, split in enumerate(SPLITS)}
    for key in sorted(known, key=lambda key: (*key[:3], order[key[3]], METRICS.index(key[4]))):
        own = {name: one[key] for name, one in found.items() if key in one}
        gains = [row["difference"] for row in own.values()]
        mean, low, high = over_runs(gains, [_error(row) for row in own.values()])
        yield dict(zip(("kind", "encoder", "mapper", "split", "metric"), key, strict=True)) | {
            "runs": {name: (row["difference"], row["ci_low"], row["ci_high"]) for name, row in own.items()},
            "models": {name: row["n_models"] for name, row in own.items()},
            "mean": mean,
            "low": low,
            "high": high,
            "above": sum(gain > 0 for gain in gains),
        }


def _error(row: dict[str, Any]) -> float:
    """Standard error of a gain within its run."""
    return float((row["ci_high"] - row["ci_low"]) / 2 / stats.t.ppf((1 + LEVEL) / 2, row["df"]))


def _lines(rows: Sequence[dict[str, Any]], names: Sequence[str], k: int) -> Iterator[str]:
    shown = {"recall_at_k": f"Recall@{k}", "mean_average_precision": "mAP"}
    head = ["sets", "encoder", "mapper", "split", "gain in", *names, "mean over runs", "runs above 0"]
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        cells = [row[name] for name in ("kind", "encoder", "mapper", "split")]
        cells.append(shown[row["metric"]])
        cells += [_cell(*row["runs"][name]) if name in row["runs"] else "-" for name in names]
        cells += [_cell(row["mean"], row["low"], row["high"]), f"{row['above']} of {len(row['runs'])}"]
        yield f"| {' | '.join(cells)} |"
    if len(names) < 2:
        return
    tests = [row for row in rows if row["split"] == "test"]
    shown_gains = sum(row["low"] > 0 for row in tests)
    yield ""
    yield (
        f"On test the interval over {len(names)} runs is above 0 in {shown_gains} of {len(tests)} lines, below 0 in"
        f" {sum(row['high'] < 0 for row in tests)}."
    )


def _cell(value: float, low: float, high: float) -> str:
    if np.isnan(low):
        return f"{100 * value:+.1f}"
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
