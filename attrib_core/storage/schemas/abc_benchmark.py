"""Tables of `abc evaluate` and `abc compare`: the published benchmark's files, measured."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from attrib_core.storage.schemas.attribution import CALIBRATION, RELIABILITY
from attrib_core.storage.schemas.columns import FLOAT64, INT32, INT64, TEXT, column

_TEST = column("test", TEXT, "file of test features, without folder and ending")
_PROMPT_KIND = column("prompt_kind", TEXT, "prompt kind as the file names it: gpt, media, object")
_METRIC = column(
    "metric", TEXT, "recall_at_k, capped_recall_at_k, success_at_k, mean_average_precision, median_rank"
)
_K = column("k", INT32, "cut-off, null where the metric has none", null=True)

ABC_METRICS = pa.schema(
    [
        _TEST,
        column("mapper", TEXT, "file of the mapper, 'untuned' without one"),
        column("ties", TEXT, "where tied distractors count: 'half', 'above' or 'below' the exemplar"),
        _PROMPT_KIND,
        column("group_by", TEXT, "'all', or what the models are grouped by: 'category', 'n_exemplars'"),
        column("group", TEXT, "'all', the category, or the range of numbers of exemplars"),
        _METRIC,
        _K,
        column("value", FLOAT64, "mean over queries, as published; median_rank: the median"),
        column("ci_low", FLOAT64, "95 % interval, bootstrap over models: lower end; NaN for one model"),
        column("ci_high", FLOAT64, "upper end"),
        column("ceiling", FLOAT64, "best value that any ranking could reach"),
        column("chance", FLOAT64, "expected value of a random ranking"),
        column("n_queries", INT64, "queries averaged"),
        column("n_models", INT64, "customized models behind them"),
    ]
)

ABC_COMPARISONS = pa.schema(
    [
        column("test", TEXT, "file of test features of the first system"),
        column("against_test", TEXT, "of the second"),
        column(
            "mapper",
            TEXT,
            "file of the first system's mapper, 'untuned' without one, null if unknown",
            null=True,
        ),
        column("against_mapper", TEXT, "of the second's", null=True),
        _PROMPT_KIND,
        column("matched_by", TEXT, "'model': the same models, paired; 'category': others, within categories"),
        _METRIC,
        _K,
        column("value", FLOAT64, "of the first system, over what both have"),
        column("against_value", FLOAT64, "of the second"),
        column("difference", FLOAT64, "first less second"),
        column(
            "ci_low", FLOAT64, "95 % interval of the difference, bootstrap over models; NaN for one model"
        ),
        column("ci_high", FLOAT64, "upper end"),
        column("p_value", FLOAT64, "two-sided, of no difference"),
        column("n_models", INT64, "models of the first system that were compared"),
        column("n_against", INT64, "models of the second"),
    ]
)


_OWN = ("encoder", "mapper", "form", "split")
_CALIBRATED = (
    _TEST,
    column("mapper", TEXT, "file of the mapper, 'untuned' without one"),
    _PROMPT_KIND,
    column(
        "form",
        TEXT,
        "'pool_aware', 'published' or 'published_whole_pool', or 'released': the published form from a checkpoint",
    ),
)

ABC_CALIBRATION = pa.schema([*_CALIBRATED, *(one for one in CALIBRATION if one.name not in _OWN)])
ABC_RELIABILITY = pa.schema([*_CALIBRATED, *(one for one in RELIABILITY if one.name not in _OWN)])


def abc_per_query_schema(ks: Sequence[int]) -> pa.Schema:
    """Schema of `per_query.parquet`, with columns for each cut-off."""
    cuts = [
        one
        for k in ks
        for one in (
            column(f"recall@{k}", FLOAT64, f"exemplars at position {k} or better / exemplars"),
            column(f"capped_recall@{k}", FLOAT64, f"the same count / min({k}, exemplars)"),
            column(f"success@{k}", FLOAT64, f"1 where any exemplar is at position {k} or better"),
        )
    ]
    return pa.schema(
        [
            _TEST,
            _PROMPT_KIND,
            column("query_index", INT64, "row of the prompt kind's features, from 0"),
            column("query_path", TEXT, "path of the synthesized image, where the file has it", null=True),
            column("model_index", INT64, "its customized model, from 0"),
            column("category", TEXT, "of the model, where a JSON of test cases was given", null=True),
            column("n_exemplars", INT64, "exemplars of the model"),
            column("average_precision", FLOAT64, "mean over the exemplars of hit / position"),
            column(
                "best_rank", FLOAT64, "position of the best exemplar; its median over queries is median_rank"
            ),
            *cuts,
        ]
    )
