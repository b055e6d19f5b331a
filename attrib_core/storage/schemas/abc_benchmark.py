"""Tables of the `abc` commands, which evaluate, calibrate and compare AbC test cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from attrib_core.storage.schemas.attribution import (
    CALIBRATION,
    INTERVAL,
    MATCHED,
    METRICS,
    RELIABILITY,
)
from attrib_core.storage.schemas.columns import FLOAT64, INT64, TEXT, column

_TEST = column("test", TEXT, "file of test features, without folder and suffix")
_PROMPT_KIND = column("prompt_kind", TEXT, "prompt kind, named as in the file: gpt, media, object")
_MAPPER = column("mapper", TEXT, "file of the mapper, 'untuned' without one")
_INTERVAL = (
    column("ci_low", FLOAT64, "95 % interval over models: lower end; NaN for one model"),
    *INTERVAL[1:],
)
"""Files of the benchmark do not say which queries share a prompt."""


def _fields(schema: pa.Schema, *names: str) -> Iterator[pa.Field]:
    return (schema.field(name) for name in names)


ABC_METRICS = pa.schema(
    [
        _TEST,
        _MAPPER,
        column(
            "ties",
            TEXT,
            "how ties count: 'half', 'above' or 'below' the exemplar, 'expected' over random orders",
        ),
        _PROMPT_KIND,
        column("group_by", TEXT, "'all', or the property that groups the models: 'category', 'n_exemplars'"),
        column("group", TEXT, "'all', the category, or the range of numbers of exemplars"),
        *_fields(METRICS, "metric", "k"),
        column("value", FLOAT64, "mean over queries, as published; median_rank: the median"),
        *_INTERVAL,
        *_fields(METRICS, "ceiling", "chance", "n_queries", "n_models"),
    ]
)

ABC_COMPARISONS = pa.schema(
    [
        column("test", TEXT, "file of test features of the first system"),
        column("against_test", TEXT, "of the second"),
        column("mapper", TEXT, "of the first system: file, 'untuned', or null if unknown", null=True),
        column("against_mapper", TEXT, "of the second", null=True),
        _PROMPT_KIND,
        column("matched_by", TEXT, "'model': the same, paired; 'category': others, within categories"),
        *_fields(METRICS, "metric", "k"),
        column("value", FLOAT64, "of the first system, over the models or categories that both have"),
        column("against_value", FLOAT64, "of the second"),
        column("difference", FLOAT64, "first minus second"),
        *_fields(MATCHED, "ci_low", "ci_high", "df"),
        column(
            "p_value",
            FLOAT64,
            "two-sided, for no difference; paired: the larger of those of sign flips and of the interval; NaN for one"
            " model",
        ),
        column(
            "p_error",
            FLOAT64,
            "standard error of the p of sign flips or permutations by its random draws, also where p_value is that of"
            " the interval, which has none; 0 where all were tried; NaN for one model",
        ),
        column("n_models", INT64, "models of the first system that were compared"),
        column("n_against", INT64, "models of the second"),
    ]
)


_REPLACED = ("encoder", "mapper", "form", "split")
_CALIBRATED = (
    _TEST,
    _MAPPER,
    _PROMPT_KIND,
    column(
        "form",
        TEXT,
        "'pool_aware', 'published', 'published_whole_pool', or 'released': the published one from a checkpoint",
    ),
)

_OVER_MODELS = {one.name: one for one in _INTERVAL}
ABC_CALIBRATION = pa.schema(
    [
        *_CALIBRATED,
        *(_OVER_MODELS.get(one.name, one) for one in CALIBRATION if one.name not in _REPLACED),
    ]
)
ABC_RELIABILITY = pa.schema([*_CALIBRATED, *(one for one in RELIABILITY if one.name not in _REPLACED)])


def abc_per_query_schema(ks: Sequence[int]) -> pa.Schema:
    """Return the schema of `per_query.parquet`, with columns for each cut-off."""
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
