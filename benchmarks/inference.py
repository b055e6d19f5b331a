"""Measure how often intervals hold and tests are wrong, by simulation of models that share prompts.

    python benchmarks/inference.py --run results/demo

A query finds an exemplar where a sum of normal effects is above a threshold: of its model, of its prompt, of both
together, and of the image. Each model has some prompts of each list, which other models have too; truth is the mean
over all models and prompts. The shares of variance are those of a run (`--run`): latent correlations of queries of one
model, of one prompt, and of both (tetrachoric, as of Pearson 1900), within each list. Without a run they are those of
the demo. Some models find always or never, whatever the prompt.

Old: percentiles of 1,000 bootstrap resamples of the models, and p-values from the same, as of version 0.1; sign flips
alone for paired differences. New: what the package computes. Coverage: how often a 95 % interval holds the truth, to be
0.93 or more. Errors: how often a claim is decided although the truth is at the border between claim and opposite, to be
0.06 or less; and how often it is decided where it holds. "-": nothing is decided with so few models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from scipy import stats

from attrib_core.attribution.calibration import calibration_errors
from attrib_core.attribution.metrics.matched_comparison import Models, matched_difference
from attrib_core.attribution.metrics.paired_comparison import paired
from attrib_core.attribution.metrics.sign_flip_test import p_value as sign_flips
from attrib_core.attribution.metrics.summary import interval_columns
from attrib_core.common import hashing, intervals
from attrib_core.common.crossing import Crossing
from attrib_core.report.findings import verdicts
from benchmarks.populations import CHANCE, POPULATIONS, Population, Sampled, draw, fit

DRAWS, LEVEL = 1000, verdicts.SIGNIFICANCE


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Print the tables; a row a procedure, case and number of models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, metavar="RESULTS", help="a finished run that variances are fitted to"
    )
    parser.add_argument("--models", type=int, nargs="+", default=[3, 5, 8, 14, 30], metavar="N")
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help="of each case; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    populations = dict(POPULATIONS)
    if options.run is not None:
        populations |= fit(options.run)
        for name, one in populations.items():
            print(f"{name}: {one}")
    rows = []
    for name, case in cases(populations).items():
        for models in options.models:
            rng = hashing.generator("benchmark of inference", options.seed, name, models)
            found = np.array([case(rng, models) for _ in range(options.samples)], dtype=float)
            old, new = found.mean(axis=0)
            rows.append({"case": name, "models": models, "old": float(old), "new": float(new)})
    for line in _lines(rows, options.models):
        print(line)
    return rows


def cases(
    populations: dict[str, Population],
) -> dict[str, Callable[[np.random.Generator, int], tuple[Any, Any]]]:
    """Return for each case a function that draws a sample and says what old and new procedures make of it."""
    tuned, control = populations["tuned"], populations["control"]
    found: dict[str, Any] = {}
    for name, one in populations.items():
        found[f"interval holds: {name}, {one.mean:.2f}"] = lambda rng, n, one=one: mean_covers(rng, n, one)
    for name in ("tuned", "styles"):
        one = populations[name]
        better = replace(one, share=tuple(min(0.99, share + 0.3 * (1 - share)) for share in one.share))
        found[f"interval holds: {name} less {name}, {better.mean - one.mean:.2f}"] = (
            lambda rng, n, pair=(better, one): difference_covers(rng, n, *pair)
        )
    for apart in (0.2, 0.6):
        found[f"difference, none (systems differ by {apart:g} of the variance)"] = (
            lambda rng, n, apart=apart: difference_is_decided(rng, n, tuned, tuned, apart)
        )
    found["difference of customized and control, 20 points"] = lambda rng, n: difference_is_decided(
        rng, n, populations["untuned"], replace(control, share=(0.004, 0.004)), 0.5
    )
    found["unpaired difference within two categories, none"] = lambda rng, n: unpaired_is_decided(
        rng, n, tuned
    )
    for factor in (1, 2, 3):
        at_factor = replace(control, share=(factor * CHANCE,) * 2, never=0.0)
        found[f"control at chance: shown at {factor} x chance"] = lambda rng, n, one=at_factor: (
            control_is_shown(rng, n, one)
        )
    for ratio in (1.0, 0.75):
        found[f"displayed influence: shown where truth is {ratio:g} of it"] = lambda rng, n, ratio=ratio: (
            influence_is_shown(rng, n, ratio)
        )
    for area in (0.7, 0.85):
        found[f"none of these: decided at an area of {area:g}"] = lambda rng, n, area=area: none_is_decided(
            rng, n, area
        )
    return found


def row_of(values: np.ndarray, crossing: Crossing) -> dict[str, Any]:
    """Return the columns of `metrics` of a share."""
    value, flat = float(values.mean()), values.ravel()
    spread = crossing.spread((flat - value) / len(flat))
    columns = interval_columns(intervals.of_share(value, spread, len(values)))
    return {"value": value, **columns, "chance": CHANCE, "n_queries": len(flat), "n_models": len(values)}


def crossing_of(sample: Sampled, systems: int = 1) -> Crossing:
    n, queries = sample.prompts.shape
    columns = (np.repeat(np.arange(n), queries), sample.prompts.ravel(), sample.lists.ravel())
    return Crossing(*(np.tile(column, systems) for column in columns))


def percentiles(by_model: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Compute the old interval of a mean of models."""
    low, high = np.quantile(resampled(by_model, rng), [0.025, 0.975])
    return float(low), float(high)


def resampled(by_model: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(by_model)
    means: np.ndarray = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS) @ by_model / n
    return means


def mean_covers(rng: np.random.Generator, n: int, one: Population) -> tuple[bool, bool]:
    sample = draw(rng, n, one, one, 0.0)
    low, high = percentiles(sample.ours.mean(axis=1), rng)
    row = row_of(sample.ours, crossing_of(sample))
    return low <= one.mean <= high, row["ci_low"] <= one.mean <= row["ci_high"]


def _paired(rng: np.random.Generator, sample: Sampled) -> tuple[Any, np.ndarray, dict[str, Any]]:
    names = [f"m{number:03d}" for number in range(len(sample.ours))]
    options: Any = dict(resamples=DRAWS, seed=int(rng.integers(1 << 16)))
    flat = (sample.ours.ravel(), sample.theirs.ravel())
    by_model = (sample.ours - sample.theirs).mean(axis=1)
    flips = sign_flips(by_model, names, times=DRAWS, seed=options["seed"]).p_value
    found = paired("recall_at_k", *flat, crossing_of(sample, 2), names, **options)
    return found, by_model, {"flips": flips, "n_queries": len(flat[0]), "n_models": len(names)}


def difference_covers(
    rng: np.random.Generator, n: int, ours: Population, theirs: Population
) -> tuple[bool, bool]:
    found, by_model, _ = _paired(rng, draw(rng, n, ours, theirs, 0.3))
    low, high = percentiles(by_model, rng)
    truth = ours.mean - theirs.mean
    return low <= truth <= high, found.interval.low <= truth <= found.interval.high


def difference_is_decided(
    rng: np.random.Generator, n: int, ours: Population, theirs: Population, apart: float
) -> tuple[bool, bool]:
    found, by_model, more = _paired(rng, draw(rng, n, ours, theirs, apart))
    low, high = percentiles(by_model, rng)
    return more["flips"] < LEVEL and not low <= 0 <= high, decided(
        verdicts.difference(found.columns() | more)
    )


def decided(evidence: verdicts.Evidence) -> bool:
    """Return whether the only claim of a page would be shown or against."""
    return verdicts.decide(evidence, evidence.p_value, evidence.worst)[0] != verdicts.OPEN


def unpaired_is_decided(rng: np.random.Generator, n: int, one: Population) -> tuple[bool, bool]:
    """Compare n with n models of two categories, one of which is easier."""
    values = draw(rng, 2 * n, one, one, 0.0).ours.mean(axis=1)
    strata = np.arange(2 * n) // 2 % 2
    values = np.clip(values + 0.2 * strata, 0, 1)
    named = np.array([f"m{number:03d}" for number in range(2 * n)])
    sides = [Models(named[i::2], values[i::2], strata[i::2].astype(str)) for i in (0, 1)]
    found = matched_difference(*sides, resamples=DRAWS, seed=int(rng.integers(1 << 16)))
    assert found is not None
    return _old_unpaired(rng, sides) < LEVEL, found.p_value < LEVEL


def _old_unpaired(rng: np.random.Generator, sides: list[Models]) -> float:
    """Compute the old p-value: twice the share of resamples on the rarer side of zero."""
    strata = np.unique(sides[0].strata)
    belongs = [(side.strata[:, None] == strata).astype(float) for side in sides]
    counts = [one.sum(axis=0) for one in belongs]
    weights = counts[0] * counts[1] / (counts[0] + counts[1])
    means, drawn = [], []
    for side, one in zip(sides, belongs, strict=True):
        n = len(side.values)
        draws = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
        drawn.append(draws @ one)
        means.append((draws * side.values) @ one / np.maximum(drawn[-1], 1))
    share = weights * (drawn[0] > 0) * (drawn[1] > 0)
    kept = share.sum(axis=1) > 0
    difference = (share * (means[0] - means[1])).sum(axis=1)[kept] / share.sum(axis=1)[kept]
    return float(2 * (min((difference <= 0).sum(), (difference >= 0).sum()) + 1) / (len(difference) + 1))


def control_is_shown(rng: np.random.Generator, n: int, one: Population) -> tuple[float, float]:
    sample = draw(rng, n, one, one, 0.0, samples=1)
    low, high = percentiles(sample.ours.mean(axis=1), rng)
    old = high <= 3 * CHANCE and sample.ours.mean() >= CHANCE / 3
    return old, shown(verdicts.control_at_chance(row_of(sample.ours, crossing_of(sample))), n)


def shown(evidence: verdicts.Evidence, n: int) -> float:
    if n < verdicts.MIN_MODELS:
        return np.nan
    return float(evidence.supports and decided(evidence))


def influence_is_shown(rng: np.random.Generator, n: int, ratio: float) -> tuple[float, float]:
    """Let one candidate of each query be shown with an influence of 0.2 to 0.8, and be true by `ratio` of it."""
    sample = draw(rng, n, Population((0.5 * ratio,) * 2, 0.2, 0.05, 0.2), POPULATIONS["tuned"], 0.0)
    true = sample.ours.ravel()
    given = rng.uniform(0.2, 0.8, len(true))
    sums = np.stack([np.ones(len(true)), given, true], axis=1)
    error = calibration_errors.excess(sums, crossing_of(sample))
    displayed = float(given.mean())
    low, high = percentiles((given - true).reshape(n, -1).mean(axis=1), rng)
    allowed = verdicts.TOLERANCE * displayed
    row = {"value": error.value, **interval_columns(error.interval), "n_models": n}
    old = -allowed <= low and high <= allowed if n >= 5 else np.nan
    return old, shown(verdicts.displayed_influence(row, displayed), n)


def none_is_decided(rng: np.random.Generator, n: int, area: float) -> tuple[float, float]:
    """Let the mass of "none of these" vary by model and prompt, and be larger without exemplars."""
    sample = draw(rng, n, POPULATIONS["tuned"], POPULATIONS["tuned"], 0.0)
    crossing = crossing_of(sample)
    rows = len(crossing.models)
    common = 0.6 * rng.normal(size=n)[crossing.models] + 0.3 * rng.normal(size=200)[sample.prompts.ravel()]
    apart = stats.norm.ppf(area) * np.sqrt(2 * (0.36 + 0.09 + 1))
    present, absent = (common + rng.normal(size=rows) + more for more in (0.0, apart))
    error = calibration_errors.area_under_curve(present, absent, crossing)
    row = {"value": error.value, **interval_columns(error.interval), "n_models": n}
    if n < verdicts.MIN_MODELS:
        return np.nan, np.nan
    wins = (absent[None] > present[:, None]).astype(float)
    pairs = wins.reshape(n, rows // n, n, rows // n).sum(axis=(1, 3))
    draws = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    low, high = np.quantile(np.einsum("rs,rs->r", draws @ pairs, draws) / rows**2, [0.025, 0.975])
    old = low >= verdicts.ACCEPTABLE_AUC or high < verdicts.ACCEPTABLE_AUC
    return old, float(decided(verdicts.none_of_these(row)))


def _lines(rows: list[dict[str, Any]], models: list[int]) -> Iterator[str]:
    """Format the table: old and new for each number of models."""
    yield f"| case | {' | '.join(f'{n} models: old, new' for n in models)} |"
    yield f"|{' --- |' * (len(models) + 1)}"
    for name in dict.fromkeys(row["case"] for row in rows):
        cells = [
            ", ".join("-" if np.isnan(row[which]) else f"{row[which]:.2f}" for which in ("old", "new"))
            for row in rows
            if row["case"] == name
        ]
        yield f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
