"""The paragraphs that say what a run shows: worded from the numbers, and no further.

A claim is called shown only where a 95 % interval excludes the opposite. What
the numbers do not settle is said to be open.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrib_core.attribution.metrics import best_features
from attrib_core.attribution.metrics.metrics_table import Metrics, Row
from attrib_core.common.constants import UNTUNED
from attrib_core.report import formatting
from attrib_core.report.claims import control_at_chance, displayed_influence, none_of_these
from attrib_core.report.claims.wording import AGAINST, MIXED, OPEN, SHOWN, Claim, times_chance, value_of
from attrib_core.report.sections import feature_choice, subgroups

MAP = "mean_average_precision"


def difference(
    comparisons: Sequence[Row],
    comparison: str,
    metric: str,
    k: int | None,
    *,
    encoder: str,
    mapper: str,
    kind: str,
    split: str = "test",
    seen: str = "all",
) -> Row | None:
    """The paired comparison of customized images: with a mapper against without, or against the control."""
    for row in comparisons:
        found = (row["comparison"], row["metric"], row["k"], row["encoder"], row["mapper"], row["kind"])
        whole = (row["condition"], row["split"], row["seen"], row["prompt_kind"])
        if found == (comparison, metric, k, encoder, mapper, kind) and whole == (
            "customized",
            split,
            seen,
            "all",
        ):
            return row
    return None


def all_claims(
    metrics: Metrics,
    comparisons: Sequence[Row],
    reliability: Sequence[Row],
    calibration: Sequence[Row],
    matched: Sequence[Row],
    *,
    kept: Collection[tuple[str, str]],
    distractors: int,
) -> list[Claim]:
    """Every claim that the run has numbers for.

    `kept` are the encoders and kinds of sets for which tuning kept the
    identity, `distractors` is the size of the pool that was searched.
    """
    found: list[Claim | None] = []
    for kind in metrics.kinds:
        found.append(trace(metrics, comparisons, kind, best_features.best_on_validation(metrics, kind)[0]))
    for kind in metrics.kinds:
        found.append(control_at_chance.claim(metrics, kind, *best_features.best_on_validation(metrics, kind)))
    for kind in metrics.kinds:
        found.append(tuning(metrics, comparisons, kind, kept))
    if "object" in metrics.kinds:
        found.append(
            unseen(
                metrics, comparisons, matched, "object", *best_features.best_on_validation(metrics, "object")
            )
        )
    calibrators = feature_choice.calibrators(metrics)
    for encoder, mapper, kinds in calibrators:
        about = kinds if len(calibrators) > 1 else []
        found.append(
            displayed_influence.claim(
                reliability, calibration, encoder, mapper, distractors=distractors, kinds=about
            )
        )
    for encoder, mapper, kinds in calibrators:
        found.append(none_of_these.claim(calibration, encoder, mapper, kinds if len(calibrators) > 1 else []))
    return [claim for claim in found if claim is not None]


def trace(metrics: Metrics, comparisons: Sequence[Row], kind: str, encoder: str) -> Claim | None:
    """Do images of customized models point to their exemplars, beyond chance and beyond the prompt?"""
    k = metrics.main_k
    where = dict(encoder=encoder, mapper=UNTUNED, kind=kind)
    row = metrics.get("recall_at_k", k, **where)
    control = metrics.get("recall_at_k", k, condition="control", **where)
    if row is None:
        return None
    ceiling = (
        f" and no order more than {formatting.percent(row['ceiling'])}" if row["ceiling"] < 0.9995 else ""
    )
    text = (
        f"With the {encoder} features as they come, {value_of(row)} of the exemplars of {kind} sets stand among the "
        f"{k} most similar candidates of an image ({formatting.plural(row['n_queries'], 'image')} of "
        f"{formatting.plural(row['n_models'], 'test model')}). A random order would find "
        f"{formatting.percent(row['chance'])}{ceiling}; so this is {times_chance(row)} chance."
    )
    question = f"Do images of models customized on {kind} sets point to their exemplars?"
    if control is None:
        return Claim(
            question, OPEN, text + " The run has no control, so the part of the prompt is not known."
        )
    text += " The base model's images of the same prompts and noise, without the modifier token, reach "
    text += f"{_control(control)}."
    paired = difference(comparisons, "condition", "recall_at_k", k, **where)
    if paired is None or paired["ci_low"] is None:
        return Claim(
            question, OPEN, text + " With fewer than two models there is no interval for the difference."
        )
    verdict = _verdict(paired)
    if verdict == SHOWN and not (row["ci_low"] is not None and row["ci_low"] > row["chance"]):
        end = "but the recall itself is not shown to be above chance."
        return Claim(question, OPEN, f"{text} The paired difference is {_difference(paired)}, {end}")
    end = {
        SHOWN: "so customization put something into these images that the features find.",
        OPEN: "so this run does not show that customization left a trace that the features find.",
        AGAINST: "so the control points to the exemplars more than the customized images do.",
    }[verdict]
    if subgroups.agreeing(paired):
        end = f"{subgroups.agreeing(paired)} that customization left a trace that the features find."
    return Claim(
        question,
        verdict,
        f"{text} The paired difference is {_difference(paired)}, {end}{subgroups.few([paired])}",
    )


def tuning(
    metrics: Metrics, comparisons: Sequence[Row], kind: str, kept: Collection[tuple[str, str]]
) -> Claim | None:
    """Does the mapper of the kind help on the test split? Pairs in `kept` (encoder, kind) have the identity."""
    head = metrics.mapper_for(kind)
    if head is None:
        return None
    sentences, verdicts, pairs = [], [], []
    for encoder in metrics.encoders:
        if (encoder, kind) in kept:
            sentences.append(
                f"For {encoder}, no mapper did better on the validation split than none, so its tuned features are "
                "the untuned ones."
            )
            verdicts.append(OPEN)
            continue
        paired = difference(comparisons, "mapper", MAP, None, encoder=encoder, mapper=head, kind=kind)
        if paired is None:
            continue
        before, after = (formatting.percent(paired[name]) for name in ("against_value", "value"))
        if paired["ci_low"] is None:
            verdicts.append(OPEN)
            sentences.append(
                f"For {encoder}, tuning changes the mAP on test sets from {before} to {after}; with fewer than two"
                " models there is no interval for the difference."
            )
            continue
        verdict = _verdict(paired)
        verdicts.append(verdict)
        pairs.append(paired)
        change = f"from {before} to {after}, {_difference(paired)}"
        sentences.append(
            {
                SHOWN: f"For {encoder}, tuning raises the mAP on test sets {change}.",
                OPEN: f"For {encoder}, tuning changes the mAP on test sets {change}{_unshown(paired)}.",
                AGAINST: f"For {encoder}, tuning lowers the mAP on test sets {change}.",
            }[verdict]
        )
    if not sentences:
        return None
    whole = verdicts[0] if len(set(verdicts)) == 1 else MIXED
    return Claim(
        f"Does tuning the mapper help on {kind} sets?", whole, " ".join(sentences) + subgroups.few(pairs)
    )


def _unshown(paired: Row) -> str:
    agreeing = subgroups.agreeing(paired)
    return f", {agreeing} that it gains" if agreeing else ": no gain is shown"


def unseen(
    metrics: Metrics,
    comparisons: Sequence[Row],
    matched: Sequence[Row],
    kind: str,
    encoder: str,
    mapper: str,
) -> Claim | None:
    """How do categories fare that the train split lacks? Held against the control, as `trace` is."""
    k = metrics.main_k
    where = dict(encoder=encoder, mapper=mapper, kind=kind)
    seen, other = (metrics.get("recall_at_k", k, seen=group, **where) for group in ("seen", "unseen"))
    if seen is None or other is None:
        return None
    text = (
        f"With {formatting.mapper(mapper)} {encoder} features, Recall@{k} is {value_of(other)} for {kind} sets of "
        f"categories that the train split lacks ({formatting.plural(other['n_models'], 'model')}) and {value_of(seen)} for "
        f"the others ({formatting.plural(seen['n_models'], 'model')}); the groups hold different {kind}s, so they are no "
        "matched pair."
    )
    within = subgroups.one_match(matched, kind, encoder, metrics.resolve(mapper, kind) or mapper, k)
    if within is not None and within["ci_low"] is not None:
        text += (
            f" Within like categories ({within['n_models']} and {within['n_against']} models) the former differ from "
            f"the latter by {_difference(within)}."
        )
    question = f"Does it hold for {kind}s of categories that the train split lacks?"
    where["mapper"] = metrics.resolve(mapper, kind) or mapper
    paired = difference(comparisons, "condition", "recall_at_k", k, seen="unseen", **where)
    if paired is None or paired["ci_low"] is None:
        return Claim(question, OPEN, f"{text} There is no interval for the difference from the control.")
    verdict = _verdict(paired)
    end = {
        SHOWN: "so it does.",
        OPEN: "so this run does not show it.",
        AGAINST: "so it does not.",
    }[verdict]
    text += " On categories that the train split lacks, customized images differ from the control by "
    text += f"{_difference(paired)}, {end}{subgroups.few([paired])}"
    return Claim(question, verdict, text)


def _verdict(paired: Row) -> str:
    if paired["p_value"] is not None and paired["p_value"] >= subgroups.LEVEL:
        return OPEN
    if paired["ci_low"] > 0:
        return SHOWN
    return AGAINST if paired["ci_high"] < 0 else OPEN


def _difference(paired: Row) -> str:
    low, high = (formatting.points(paired[name]) for name in ("ci_low", "ci_high"))
    side = "above zero" if paired["ci_low"] > 0 else "below zero" if paired["ci_high"] < 0 else "around zero"
    return f"{formatting.points(paired['difference'])} points with an interval {side} [{low}, {high}]{_p(paired['p_value'])}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f" (p{formatting.THIN}{'<' if value < 0.001 else '='}{formatting.THIN}{max(value, 0.001):.3f})"


def _control(row: Row) -> str:
    if row["value"] == 0:
        return f"0.0{formatting.THIN}%, where chance is {formatting.percent(row['chance'])}: none of them is found"
    reached = f"{value_of(row)}, {times_chance(row)} chance"
    if row["ci_low"] is None:
        return reached
    if row["ci_low"] > row["chance"]:
        return f"{reached}: above it, so a part of the recall needs no customization"
    if row["ci_high"] < row["chance"]:
        return f"{reached}: below it"
    return f"{reached}: compatible with it"
