"""Schemas of the tables of results: tuning, ranks, metrics, calibrated influence."""

from __future__ import annotations

import pyarrow as pa

from attrib_core.storage.schemas.columns import (
    BOOL,
    CONDITION,
    ENCODER,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    KIND,
    MAPPER,
    PROMPT_KIND,
    QUERY,
    SET,
    SPLIT,
    TEXT,
    column,
)

SEEN_CATEGORIES = column("seen", TEXT, "'all', 'seen' or 'unseen' categories")
PROMPT_KINDS = column("prompt_kind", TEXT, "list that the prompts came from, or 'all'")
METRIC = column(
    "metric", TEXT, "recall_at_k, capped_recall_at_k, success_at_k, mean_average_precision, median_rank"
)
K = column("k", INT32, "cut-off, null where the metric has none", null=True)
INTERVAL = (
    column("ci_low", FLOAT64, "95 % interval over models and prompts: lower end; NaN for one model"),
    column("ci_high", FLOAT64, "upper end"),
    column("df", FLOAT64, "degrees of freedom of the interval; NaN for one model"),
)
PERMUTED = (
    column("p_value", FLOAT64, "two-sided, for no difference; NaN for one model"),
    column("p_error", FLOAT64, "standard error of p_value by its random draws; 0 where all were tried"),
)
PAIRED = (
    column(
        "p_value",
        FLOAT64,
        "two-sided, for no difference: the larger of those of sign flips and of the interval; NaN for one model",
    ),
    column(
        "p_error",
        FLOAT64,
        "standard error of the p of sign flips by its random draws, also where p_value is that of the interval,"
        " which has none; 0 where all were tried; NaN for one model",
    ),
)

MAPPER_CURVE = pa.schema(
    [
        ENCODER,
        MAPPER,
        column("start", TEXT, "starting point of training: 'identity', 'whitened' or 'within' features"),
        column("shrinkage", FLOAT64, "of the covariance that the starting point whitens with", null=True),
        column(
            "penalty", FLOAT64, "weight of the penalty on non-orthogonal maps; null: not trained", null=True
        ),
        column("epoch", INT32, "passes over the train split; 0 is the starting point"),
        column("loss", FLOAT64, "mean contrastive loss of the epoch, without the penalty", null=True),
        column(
            "drift", FLOAT64, "unweighted penalty, summed over heads: ||H^T H - I||^2, or of an mlp's units"
        ),
        column("train_mean_average_precision", FLOAT64, "mean over the sets of the train split"),
        column("validation_mean_average_precision", FLOAT64, "mean over the sets of the validation split"),
        column("chosen", BOOL, "whether the heads of this row were saved"),
    ]
)

INDEX_IDS = pa.schema(
    [
        column("row", INT64, "number of the image in the index"),
        column("image_id", TEXT, "its name in the pool"),
    ]
)

RANKS = pa.schema(
    [
        *(ENCODER, MAPPER, QUERY, SET, CONDITION, PROMPT_KIND),
        column("exemplar_id", TEXT, "exemplar of the query's own set"),
        column("similarity", FLOAT32, "cosine similarity of query and exemplar"),
        column("n_above", INT64, "distractors that are more similar to the query than this exemplar"),
        column("n_tied", INT64, "distractors that are equally similar: cosines apart by at most 2**-23"),
        column("n_siblings_above", INT32, "other exemplars of the set that are more similar"),
        column("n_siblings_tied", INT32, "other exemplars of the set that are equally similar"),
        column("n_distractors", INT64, "number of distractors that were searched"),
    ]
)

CANDIDATES = pa.schema(
    [
        *(ENCODER, MAPPER, QUERY),
        column("candidate_ids", pa.list_(TEXT), "the most similar distractors, best first"),
        column("similarities", pa.list_(FLOAT32), "their cosine similarities"),
        column(
            "histogram", pa.list_(INT64), "number of other distractors by cosine, equal bins over [-1, 1]"
        ),
        column("histogram_sums", pa.list_(FLOAT64), "sum of their cosine similarities in each bin"),
    ]
)

METRICS = pa.schema(
    [
        *(ENCODER, MAPPER, CONDITION, SPLIT, KIND),
        *(SEEN_CATEGORIES, PROMPT_KINDS, METRIC, K),
        column("value", FLOAT64, "mean over queries; median_rank: the median"),
        *INTERVAL,
        column("ceiling", FLOAT64, "largest value that any ranking could reach"),
        column("chance", FLOAT64, "expected value of a random ranking"),
        column("n_queries", INT64, "queries averaged"),
        column("n_models", INT64, "customized models of these queries"),
    ]
)

STRATA = pa.schema(
    [
        *(ENCODER, MAPPER, CONDITION, SPLIT, KIND),
        PROMPT_KINDS,
        column("group_by", TEXT, "property that groups the models: 'category', 'n_exemplars'"),
        column("group", TEXT, "the category, or the range of numbers of exemplars"),
        *(METRICS.field(name) for name in METRICS.names[METRICS.names.index("metric") :]),
    ]
)

MATCHED = pa.schema(
    [
        *(ENCODER, MAPPER, CONDITION, SPLIT, KIND),
        *(PROMPT_KINDS, METRIC, K),
        column("value", FLOAT64, "of unseen categories: weighted mean over groups of similar categories"),
        column("against_value", FLOAT64, "of seen categories, with the same weights"),
        column("difference", FLOAT64, "unseen minus seen"),
        column("ci_low", FLOAT64, "95 % interval of the difference over models: lower end; NaN if too few"),
        *INTERVAL[1:],
        *PERMUTED,
        column("n_models", INT64, "models of unseen categories that have a match"),
        column("n_against", INT64, "models of seen categories that have a match"),
        column("n_strata", INT64, "groups of similar categories that have both"),
    ]
)

COMPARISONS = pa.schema(
    [
        ENCODER,
        column(
            "comparison", TEXT, "'mapper': tuned against untuned; 'condition': customized against control"
        ),
        MAPPER,
        CONDITION,
        column("against_mapper", TEXT, "mapper of the other side"),
        column("against_condition", TEXT, "condition of the other side"),
        SPLIT,
        KIND,
        *(SEEN_CATEGORIES, PROMPT_KINDS, METRIC, K),
        column("value", FLOAT64, "metric of this side, over the models that both sides have"),
        column("against_value", FLOAT64, "metric of the other side"),
        column("difference", FLOAT64, "value minus against_value"),
        column("ci_low", FLOAT64, "95 % interval of the difference, paired: lower end; NaN for one model"),
        *INTERVAL[1:],
        *PAIRED,
        column("n_queries", INT64, "queries of this side"),
        column("n_models", INT64, "customized models that both sides have"),
    ]
)

SOFT_SCORES = pa.schema(
    [
        *(ENCODER, MAPPER, QUERY),
        column("candidate_id", TEXT, "exemplar_id or image_id"),
        column("is_exemplar", BOOL, "whether the candidate is an exemplar of the query's set"),
        column("rank", INT32, "position by similarity, 1 is best"),
        column("similarity", FLOAT32, "cosine"),
        column(
            "influence", FLOAT64, "share x (1 - none); over a query, with its tail and `none`, it sums to 1"
        ),
        column("none", FLOAT64, "probability of 'none of these', the same in all rows of a query"),
    ]
)

FORM = column("form", TEXT, "kind of calibrator: 'pool_aware', 'published' or 'published_whole_pool'")

JUDGED = column(
    "judged",
    TEXT,
    "'shares': given that the sources are in the pool; 'displayed': influence as in soft_scores, share x (1 - none),"
    " where a share absent_share of the queries has its exemplars removed from the pool",
)

CALIBRATION = pa.schema(
    [
        *(ENCODER, MAPPER, FORM, SPLIT),
        column("pool_share", FLOAT64, "fraction of the distractors that was searched; 1: all, as in fitting"),
        column("kind", TEXT, "'object', 'style', or 'all' sets"),
        column(
            "metric",
            TEXT,
            "negative_log_likelihood, impossible, expected_calibration_error, brier, exemplar_mass, tail_mass, given"
            " that the sources are in the pool; mixture_negative_log_likelihood, mixture_expected_calibration_error,"
            " mixture_brier: of what is displayed, where the share absent_share of queries has its exemplars taken"
            " away; displayed_excess_at_0.1, 0.01, 0.001: there, mean displayed less mean true influence of the"
            " candidates given so much or more, over the models that have such; none_mass and none_said, and the same"
            " of queries without their exemplars (_held_out) and of controls (_control); none_auc: chance that a query"
            " without its exemplars has more mass of none than one with them",
        ),
        column("value", FLOAT64, "mean over queries; infinite where the likelihood of one is 0"),
        *INTERVAL,
        column("n_queries", INT64, "queries of these models"),
        column("n_models", INT64, "customized models of these queries"),
    ]
)

RELIABILITY = pa.schema(
    [
        *(ENCODER, MAPPER, FORM, SPLIT, JUDGED),
        column("bin_low", FLOAT64, "lower edge of the influence bin"),
        column("bin_high", FLOAT64, "upper edge"),
        column("mean_influence", FLOAT64, "mean predicted influence in the bin", null=True),
        column("exemplar_share", FLOAT64, "share of the true exemplar mass in the bin", null=True),
        column("n_candidates", INT64, "candidates in the bin"),
    ]
)

ATTRIBUTIONS = pa.schema(
    [
        column("image", TEXT, "image file, as it was given"),
        column("kind", TEXT, "kind of sets whose features and calibrator were used: 'object' or 'style'"),
        ENCODER,
        MAPPER,
        column("rank", INT32, "position by similarity among all candidates, 1 is best"),
        column("image_id", TEXT, "candidate: row of the pool"),
        column("is_exemplar", BOOL, "whether a model of the run was customized on the candidate"),
        column("similarity", FLOAT32, "cosine"),
        column("influence", FLOAT64, "share x (1 - none), by the run's calibrator"),
        column("none", FLOAT64, "probability of 'none of these', the same in all rows of an image and kind"),
        column("caption", TEXT, "of the candidate, from the pool", null=True),
        column("attribution", TEXT, "whom to credit for the candidate, from the pool", null=True),
        column("licence", TEXT, "of the candidate, from the pool", null=True),
    ]
)
