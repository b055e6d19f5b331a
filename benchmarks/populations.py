"""Simulated models that share prompts, with the variances of a finished run; for `inference.py`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from scipy import stats

from attrib_core.attribution.metrics import measure
from attrib_core.attribution.metrics.query_groups import System
from attrib_core.storage import tables

LISTS, EACH, SAMPLES = (8, 12), 4, 2  # prompts of each list, of them for a model, images of each
CHANCE = 0.038  # of Recall@100 in the demo


@dataclass(frozen=True)
class Population:
    """Share of queries that find an exemplar in each list, shares of latent variance, models without variance."""

    share: tuple[float, float]
    model: float
    prompt: float
    both: float
    never: float = 0.0
    always: float = 0.0

    @property
    def mean(self) -> float:
        return self.always + (1.0 - self.always - self.never) * float(np.mean(self.share))


POPULATIONS = {  # of the demo, and one with more models that find always or never
    "tuned": Population((0.375, 0.984), 0.0, 0.52, 0.41),
    "untuned": Population((0.078, 0.375), 0.0, 0.32, 0.63, never=0.12),
    "styles": Population((0.453, 0.5), 0.51, 0.23, 0.21, always=0.06),
    "control": Population((0.062, 0.115), 0.09, 0.03, 0.0, never=0.19),
    "always or never": Population((0.4, 0.6), 0.3, 0.2, 0.2, never=0.2, always=0.3),
}
FITTED = {  # encoder, mapper, kind, condition and cut-off of a run
    "tuned": ("layout", "linear-object", "object", "customized", 10),
    "untuned": ("layout", "untuned", "object", "customized", 10),
    "styles": ("look", "untuned", "style", "customized", 10),
    "control": ("layout", "linear-object", "object", "control", 100),
}


class Sampled(NamedTuple):
    """Values of two systems, (models, queries), whose prompts and lists are the same."""

    ours: np.ndarray
    theirs: np.ndarray
    prompts: np.ndarray
    lists: np.ndarray


def draw(
    rng: np.random.Generator,
    n: int,
    ours: Population,
    theirs: Population,
    apart: float,
    samples: int = SAMPLES,
) -> Sampled:
    """Draw n models of two systems, whose effects share all but a part `apart` of their variance."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    fixed, of_models = rng.random(n), rng.normal(size=(3, n))
    for number, length in enumerate(LISTS):
        prompts = rng.permuted(np.tile(np.arange(length), (n, 1)), axis=1)[:, :EACH]
        of_prompts, of_both = rng.normal(size=(3, length)), rng.normal(size=(3, n, EACH))
        of_images = rng.normal(size=(3, n, EACH, samples))
        values = []
        for system, one in ((1, ours), (2, theirs)):
            model, prompt, both, image = (
                np.sqrt(1 - apart) * effect[0] + np.sqrt(apart) * effect[system]
                for effect in (of_models, of_prompts, of_both, of_images)
            )
            latent = np.sqrt(one.model) * model[:, None] + np.sqrt(one.prompt) * prompt[prompts]
            latent = (latent + np.sqrt(one.both) * both)[..., None]
            latent = latent + np.sqrt(1 - one.model - one.prompt - one.both) * image
            found = (latent < stats.norm.ppf(one.share[number])).reshape(n, -1).astype(float)
            found[fixed < one.never] = 0.0
            found[fixed >= 1 - one.always] = 1.0
            values.append(found)
        named = np.repeat(prompts + 100 * number, samples, axis=1)
        parts.append((*values, named, np.full_like(named, number)))
    return Sampled(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))


def fit(run: Path) -> dict[str, Population]:
    """Fit populations to the queries of the sets of a run that no mapper was trained on."""
    exemplars = tables.read(run / "exemplars.parquet", "exemplars", measure.EXEMPLAR_COLUMNS)
    found = {}
    for name, (encoder, mapper, kind, condition, k) in FITTED.items():
        path = run / "ranks" / encoder / f"{mapper}.parquet"
        ranks = tables.read(path, "ranks", measure.RANK_COLUMNS)
        (one,) = measure.systems([(str(path), ranks)], exemplars, recall_ks=[k])
        chosen = (one.labels["kind"] == kind) & (one.labels["condition"] == condition)
        found[name] = fit_population(one, np.flatnonzero(chosen & (one.labels["split"] != "train")), k)
    return found


def fit_population(one: System, members: np.ndarray, k: int) -> Population:
    """Fit shares, and latent correlations of pairs of queries of one list; a value of at least 1/2 is a success."""
    values = (one.values["recall_at_k", k][members] >= 0.5).astype(float)
    models, prompts, lists = (one.labels[name][members] for name in ("exemplar_set", "prompt", "prompt_kind"))
    by_model = np.array([values[models == name].mean() for name in np.unique(models)])
    never, always = float(np.mean(by_model == 0)), float(np.mean(by_model == 1))
    rates, correlations = [], []
    for name in np.unique(lists):
        own = lists == name
        y, model, prompt = values[own], models[own], prompts[own]
        same_model, same_prompt = model[:, None] == model, prompt[:, None] == prompt
        rate = float(np.clip(y.mean(), 0.002, 0.998))
        pairs = (same_model & ~same_prompt, ~same_model & same_prompt, same_model & same_prompt)
        rates.append(rate)
        correlations.append([_latent(rate, _both(y, pair)) for pair in pairs])
    model, prompt, cell = np.mean(correlations, axis=0)
    model, prompt = max(0.0, model), max(0.0, prompt)
    total = min(0.95, max(model + prompt, cell))
    scale = min(1.0, total / max(model + prompt, 1e-9))
    parts = (model * scale, prompt * scale, total - scale * (model + prompt))
    part = Population((round(rates[0], 3), round(rates[-1], 3)), *(round(float(one), 2) for one in parts))
    return replace(part, **_extra(part, never, always))


def _extra(one: Population, never: float, always: float) -> dict[str, float]:
    """Return the shares of models at 0 and 1 beyond those that the effects make, by simulation."""
    values = draw(np.random.default_rng(0), 2000, one, one, 0.0).ours.mean(axis=1)
    return {
        "never": round(max(0.0, never - float(np.mean(values == 0))), 2),
        "always": round(max(0.0, always - float(np.mean(values == 1))), 2),
    }


def _both(values: np.ndarray, pairs: np.ndarray) -> float:
    pairs = pairs & ~np.eye(len(values), dtype=bool)
    return float((pairs * np.outer(values, values)).sum() / max(1, pairs.sum()))


def _latent(rate: float, both: float) -> float:
    """Solve for the correlation of two normal variables that are both below the quantile of `rate`."""
    threshold, low, high = stats.norm.ppf(rate), -0.9, 0.99
    for _ in range(30):
        middle = (low + high) / 2
        covariance = [[1, middle], [middle, 1]]
        found = stats.multivariate_normal.cdf([threshold, threshold], cov=covariance)
        low, high = (middle, high) if found < both else (low, middle)
    return (low + high) / 2
