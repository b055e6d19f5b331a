"""The table of claims: questions that the run answers, each with value, interval, p-values and verdict."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from attrib_core.attribution.calibration.calibration_metrics import LEVELS
from attrib_core.attribution.metrics.best_features import best_on_validation
from attrib_core.attribution.metrics.metrics_table import Metrics, Row
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.findings import verdicts
from attrib_core.report.findings.claim import Claim, Draft, judged
from attrib_core.report.sections import feature_choice, subgroups

MAP = "mean_average_precision"
MIN_CANDIDATES = 20
"""Candidates above a level of influence that a claim about it needs."""


def claims(
    metrics: Metrics,
    comparisons: Sequence[Row],
    reliability: Sequence[Row],
    calibration: Sequence[Row],
    matched: Sequence[Row],
    *,
    kept: Collection[tuple[str, str]],
) -> list[Claim]:
    """Return the claims that the run has numbers for, in the order of the page.

    `reliability` and `calibration` have the rows of one kind of calibrator; `kept` are the (encoder, kind) whose
    tuned mapper is the identity.
    """
    best = {kind: best_on_validation(metrics, kind) for kind in metrics.kinds}
    found = [trace(metrics, comparisons, kind, encoder) for kind, (encoder, _) in best.items()]
    found += [control_at_chance(metrics, kind, *features) for kind, features in best.items()]
    for kind in best:
        found += tuning(metrics, comparisons, kind, kept)
    if "object" in best:
        found.append(unseen(metrics, comparisons, matched, "object", *best["object"]))
    calibrators = feature_choice.calibrators(metrics)
    covered = [
        (encoder, mapper, kinds if len(calibrators) > 1 else []) for encoder, mapper, kinds in calibrators
    ]
    found += [displayed_influence(reliability, calibration, *features) for features in covered]
    found += [none_of_these(calibration, *features) for features in covered]
    return judged([draft for draft in found if draft is not None])


def trace(metrics: Metrics, comparisons: Sequence[Row], kind: str, encoder: str) -> Draft | None:
    """Answer whether customized models retrieve their exemplars, beyond chance and the prompt."""
    where: dict[str, Any] = dict(
        metric="recall_at_k", k=metrics.main_k, encoder=encoder, mapper=UNTUNED, kind=kind
    )
    recall, control = metrics.get(**where), metrics.get(**where, condition="control")
    if recall is None:
        return None
    paired = control and _paired(comparisons, "condition", **where)
    against = f" and {formatting.row_share(control)} for the base model (control)" if control else ""
    ceiling = f", the ceiling {formatting.percent(recall['ceiling'])}" if recall["ceiling"] < 0.9995 else ""
    sentence = (
        f"Recall@{metrics.main_k} of untuned {encoder} features is {formatting.row_share(recall)} for customized"
        f" models{against}; chance is {formatting.percent(recall['chance'])}{ceiling}."
    )
    question = (
        f"Do images of models customized on {kind} sets retrieve their exemplars better than the control?"
    )
    return Draft(
        question=question,
        evidence=verdicts.trace(recall, control, paired),
        sentence=sentence,
        **_difference(paired),
    )


def control_at_chance(metrics: Metrics, kind: str, encoder: str, mapper: str) -> Draft | None:
    """Answer whether the control is at chance; otherwise prompts retrieve exemplars without customization.

    At the largest K, since the first few candidates of a control near chance hold next to no exemplars.
    """
    k = max(metrics.values("k", metric="recall_at_k"))
    row = metrics.get("recall_at_k", k, encoder=encoder, mapper=mapper, kind=kind, condition="control")
    if row is None:
        return None
    low, value, high = (row[name] and row[name] / row["chance"] for name in ("ci_low", "value", "ci_high"))
    factor = verdicts.smallest_factor(row)
    power = (
        f" At chance, {formatting.plural(row['n_models'], 'model')} could show it within a factor of"
        f" {formatting.ratio(factor)}."
        if factor
        else ""
    )
    return Draft(
        question=f"Is the control of {kind} sets at chance?",
        evidence=verdicts.control_at_chance(row),
        sentence=f"Recall@{formatting.count(k)} of {formatting.mapper(mapper)} {encoder} features is"
        f" {formatting.row_share(row)} for the control; chance is {formatting.percent(row['chance'])}.{power}",
        value=f"{formatting.ratio(value)} × chance",
        interval="" if low is None else f"[{formatting.ratio(low)}, {formatting.ratio(high)}]",
    )


def tuning(
    metrics: Metrics, comparisons: Sequence[Row], kind: str, kept: Collection[tuple[str, str]]
) -> Iterator[Draft]:
    """Answer for each encoder whether the mapper of a kind helps on the test split."""
    mapper = metrics.mapper_for(kind)
    for encoder in metrics.encoders if mapper else ():
        question = f"Does tuning {encoder} features help on {kind} sets?"
        where: dict[str, Any] = dict(metric=MAP, k=None, encoder=encoder, mapper=mapper, kind=kind)
        if (encoder, kind) in kept:
            sentence = "On the validation split no mapper was better than the identity, which was kept."
            yield Draft(question=question, evidence=verdicts.no_test(), sentence=sentence)
        elif paired := _paired(comparisons, "mapper", **where):
            after, before = (formatting.percent(paired[name]) for name in ("value", "against_value"))
            sentence = f"mAP is {after} with the mapper and {before} without it."
            yield Draft(
                question=question,
                evidence=verdicts.difference(paired),
                sentence=sentence,
                **_difference(paired),
            )


def unseen(
    metrics: Metrics, comparisons: Sequence[Row], matched: Sequence[Row], kind: str, encoder: str, mapper: str
) -> Draft | None:
    """Answer whether retrieval beats the control on categories that are not in the train split, too."""
    mapper = metrics.resolve(mapper, kind) or mapper
    where: dict[str, Any] = dict(
        metric="recall_at_k", k=metrics.main_k, encoder=encoder, mapper=mapper, kind=kind
    )
    groups = [metrics.get(**where, seen=group) for group in ("unseen", "seen")]
    if None in groups:
        return None
    paired = _paired(comparisons, "condition", **where, seen="unseen")
    other, seen = (
        f"{formatting.row_share(row)} ({formatting.plural(row['n_models'], 'model')})"
        for row in groups
        if row
    )
    sentence = (
        f"Recall@{metrics.main_k} of {encoder} features is {other} for unseen and {seen} for seen categories"
    )
    match = subgroups.one_match(matched, kind, encoder, mapper, metrics.main_k)
    if match is not None and match["ci_low"] is not None:
        columns = _difference(match)
        sentence += f"; within like categories they differ by {columns['value']} {columns['interval']}"
    question = f"Does retrieval beat the control on {kind}s of unseen categories?"
    return Draft(
        question=question,
        evidence=verdicts.difference(paired),
        sentence=f"{sentence}.",
        **_difference(paired),
    )


def displayed_influence(
    reliability: Sequence[Row],
    calibration: Sequence[Row],
    encoder: str,
    mapper: str,
    kinds: Sequence[str] = (),
) -> Draft | None:
    """Answer whether displayed influence is accurate where it is large.

    `kinds` are the kinds of sets of the calibrator, if the run has several calibrators. Large is 10 % or more, or
    1 % or 0.1 % if fewer than MIN_CANDIDATES candidates have more.
    """
    where = dict(encoder=encoder, mapper=mapper, split="test")
    bins = list(_find(reliability, **where, judged="displayed"))
    if not any(row["n_candidates"] for row in bins):  # the test split has none of these sets
        return None
    question = f"Is large displayed influence accurate{_for_sets(kinds)}?"
    for level in LEVELS:
        large = [row for row in bins if row["bin_low"] >= 0.999 * level and row["mean_influence"] is not None]
        count = sum(row["n_candidates"] for row in large)
        if count >= MIN_CANDIDATES:
            break
    else:
        few = f"Fewer than {MIN_CANDIDATES} candidates have an influence of {formatting.percent(level)} or more."
        return Draft(question=question, evidence=verdicts.no_test(), sentence=few)
    displayed, true = (
        sum(row[name] * row["n_candidates"] for row in large) / count
        for name in ("mean_influence", "exemplar_share")
    )
    excess = next(_find(calibration, **where, kind="all", metric=f"displayed_excess_at_{level:g}"), None)
    power = ""
    if excess and (margin := verdicts.smallest_margin(excess)) is not None:
        within, allowed = (
            formatting.percent(one, decimals=2) for one in (margin, verdicts.TOLERANCE * displayed)
        )
        models = formatting.plural(excess["n_models"], "model")
        power = f" {models.capitalize()} could show them to be equal within {within}; {allowed} is allowed."
    return Draft(
        question=question,
        evidence=verdicts.displayed_influence(excess, displayed),
        sentence=f"With {formatting.features(encoder, mapper)}, {formatting.plural(count, 'candidate')} with an"
        f" influence of {formatting.percent(level)} or more have {formatting.percent(displayed, decimals=2)} on"
        f" average, and a true share of {formatting.percent(true, decimals=2)}.{power}",
        value=f"{formatting.points(displayed - true, decimals=2)} points",
        interval=formatting.points_interval(excess["ci_low"], excess["ci_high"], decimals=2)
        if excess
        else "",
    )


def none_of_these(
    calibration: Sequence[Row], encoder: str, mapper: str, kinds: Sequence[str] = ()
) -> Draft | None:
    """Answer whether "none of these" separates images with their exemplars in the pool from those without."""
    kind = kinds[0] if len(kinds) == 1 else "all"
    own = {
        row["metric"]: row
        for row in _find(calibration, encoder=encoder, mapper=mapper, split="test", kind=kind)
    }
    if not {"none_auc", "none_said_held_out", "none_said"} <= set(own):
        return None
    auc = own["none_auc"]
    untuned = dict(encoder=encoder, mapper=UNTUNED, split="test", kind=kind, metric="none_auc")
    plain = None if mapper == UNTUNED else next(_find(calibration, **untuned), None)
    return Draft(
        question=f"Does “none of these” detect images whose exemplars are not in the pool{_for_sets(kinds)}?",
        evidence=verdicts.none_of_these(auc),
        sentence=f"Area under the ROC curve with {formatting.features(encoder, mapper)}"
        f"{f' ({formatting.row_share(plain)} untuned)' if plain else ''}; the answer is “none of these” for"
        f" {formatting.row_share(own['none_said_held_out'])} of images without their exemplars in the pool and,"
        f" wrongly, for {formatting.row_share(own['none_said'])} of images with them.",
        value=formatting.percent(auc["value"]),
        interval=formatting.interval(auc["ci_low"], auc["ci_high"]),
    )


def _find(rows: Iterable[Row], **where: Any) -> Iterator[Row]:
    """Yield the rows that have these values."""
    return (row for row in rows if where.items() <= row.items())


def _paired(comparisons: Sequence[Row], comparison: str, *, seen: str = "all", **where: Any) -> Row | None:
    """Return the comparison of customized models on the test split, all prompts, with the control or another mapper."""
    overall = dict(condition="customized", split="test", prompt_kind="all")
    return next(_find(comparisons, comparison=comparison, seen=seen, **overall, **where), None)


def _difference(paired: Row | None) -> dict[str, Any]:
    """Return value and interval of a paired difference in percentage points."""
    if paired is None:
        return {}
    interval = formatting.points_interval(paired["ci_low"], paired["ci_high"])
    return dict(value=f"{formatting.points(paired['difference'])} points", interval=interval)


def _for_sets(kinds: Sequence[str]) -> str:
    return f" for {formatting.listing(kinds)} sets" if kinds else ""
