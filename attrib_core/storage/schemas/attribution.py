"""Tables of what was found: tuning, ranks, metrics, calibrated influence."""

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

MAPPER_CURVE = pa.schema(
    [
        ENCODER,
        MAPPER,
        column("start", TEXT, "where training began: 'identity', 'whitened' or 'within' features"),
        column("shrinkage", FLOAT64, "of the covariance by which the start whitens", null=True),
        column(
            "penalty",
            FLOAT64,
            "weight of the penalty on leaving the orthogonal maps; null: the start as it is",
            null=True,
        ),
        column("epoch", INT32, "passes over the train split; 0 is the start"),
        column("loss", FLOAT64, "mean contrastive loss of the epoch, without the penalty", null=True),
        column(
            "drift",
            FLOAT64,
            "what the penalty weighs, of all heads: ||H^T H - I||^2; of an mlp what its units add",
        ),
        column("train_mean_average_precision", FLOAT64, "mean over the sets of the train split"),
        column("validation_mean_average_precision", FLOAT64, "mean over the sets of the validation split"),
        column("chosen", BOOL, "whether the heads of this row are those that were saved"),
    ]
)

INDEX_IDS = pa.schema(
    [
        column("row", INT64, "number by which the index knows the image"),
        column("image_id", TEXT, "its row in the pool"),
    ]
)

RANKS = pa.schema(
    [
        ENCODER,
        MAPPER,
        QUERY,
        SET,
        CONDITION,
        PROMPT_KIND,
        column("exemplar_id", TEXT, "exemplar of the query's own set"),
        column("similarity", FLOAT32, "cosine of query and exemplar"),
        column("n_above", INT64, "distractors that are more similar to the query than this exemplar"),
        column("n_tied", INT64, "distractors that are equally similar: cosines apart by at most 2**-23"),
        column("n_siblings_above", INT32, "other exemplars of the set that are more similar"),
        column("n_siblings_tied", INT32, "other exemplars of the set that are equally similar"),
        column("n_distractors", INT64, "size of the pool that was searched"),
    ]
)

CANDIDATES = pa.schema(
    [
        ENCODER,
        MAPPER,
        QUERY,
        column("candidate_ids", pa.list_(TEXT), "the most similar distractors, best first"),
        column("similarities", pa.list_(FLOAT32), "their cosines"),
        column(
            "histogram",
            pa.list_(INT64),
            "count of all other distractors by cosine, equal bins over [-1, 1], lower edge inside",
        ),
        column("histogram_sums", pa.list_(FLOAT64), "sum of the cosines in each bin"),
    ]
)

METRICS = pa.schema(
    [
        ENCODER,
        MAPPER,
        CONDITION,
        SPLIT,
        KIND,
        column("seen", TEXT, "'all', 'seen' or 'unseen' categories"),
        column("prompt_kind", TEXT, "list that the prompts came from, or 'all'"),
        column(
            "metric",
            TEXT,
            "recall_at_k, capped_recall_at_k, success_at_k, mean_average_precision, median_rank",
        ),
        column("k", INT32, "cut-off, null where the metric has none", null=True),
        column("value", FLOAT64, "mean over queries; median_rank: the median"),
        column("ci_low", FLOAT64, "95 % interval, bootstrap over models: lower end; NaN for one model"),
        column("ci_high", FLOAT64, "upper end"),
        column("ceiling", FLOAT64, "best value that any ranking could reach"),
        column("chance", FLOAT64, "expected value of a random ranking"),
        column("n_queries", INT64, "queries averaged"),
        column("n_models", INT64, "customized models behind them"),
    ]
)

STRATA = pa.schema(
    [
        ENCODER,
        MAPPER,
        CONDITION,
        SPLIT,
        KIND,
        column("prompt_kind", TEXT, "list that the prompts came from, or 'all'"),
        column("group_by", TEXT, "what the models are grouped by: 'category', 'n_exemplars'"),
        column("group", TEXT, "the category, or the range of numbers of exemplars"),
        *(METRICS.field(name) for name in METRICS.names[METRICS.names.index("metric") :]),
    ]
)

MATCHED = pa.schema(
    [
        ENCODER,
        MAPPER,
        CONDITION,
        SPLIT,
        KIND,
        column("prompt_kind", TEXT, "list that the prompts came from, or 'all'"),
        METRICS.field("metric"),
        METRICS.field("k"),
        column(
            "value", FLOAT64, "of unseen categories: models of like categories averaged, by shared weights"
        ),
        column("against_value", FLOAT64, "of seen categories, by the same weights"),
        column("difference", FLOAT64, "unseen less seen"),
        column(
            "ci_low", FLOAT64, "95 % interval of the difference, bootstrap over models; NaN for one model"
        ),
        column("ci_high", FLOAT64, "upper end"),
        column("p_value", FLOAT64, "two-sided, of no difference"),
        column("n_models", INT64, "models of unseen categories that have a match"),
        column("n_against", INT64, "models of seen categories that have a match"),
        column("n_strata", INT64, "groups of like categories that hold both"),
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
        column("seen", TEXT, "'all', 'seen' or 'unseen' categories"),
        column("prompt_kind", TEXT, "list that the prompts came from, or 'all'"),
        column("metric", TEXT, "as in metrics"),
        column("k", INT32, "cut-off, null where the metric has none", null=True),
        column("value", FLOAT64, "metric of this side, over the models that both sides have"),
        column("against_value", FLOAT64, "metric of the other side"),
        column("difference", FLOAT64, "value less against_value"),
        column(
            "ci_low",
            FLOAT64,
            "95 % interval of the difference, paired bootstrap over models; NaN for one model",
        ),
        column("ci_high", FLOAT64, "upper end"),
        column(
            "p_value",
            FLOAT64,
            "two-sided, of no difference, by flips of models' signs; NaN for one model",
        ),
        column("n_models", INT64, "customized models that both sides have"),
    ]
)

SOFT_SCORES = pa.schema(
    [
        ENCODER,
        MAPPER,
        QUERY,
        column("candidate_id", TEXT, "exemplar_id or image_id"),
        column("is_exemplar", BOOL, "whether the candidate is an exemplar of the query's set"),
        column("rank", INT32, "position by similarity, 1 is best"),
        column("similarity", FLOAT32, "cosine"),
        column(
            "influence",
            FLOAT64,
            "what is displayed: share x (1 - none); with its tail and `none` those of a query sum to 1",
        ),
        column("none", FLOAT64, "mass of 'none of these', the same in all rows of a query"),
    ]
)

FORM = column(
    "form",
    TEXT,
    "form of the calibrator: 'pool_aware', 'published' or 'published_whole_pool'",
)

JUDGED = column(
    "judged",
    TEXT,
    "'shares': given that the sources are in the pool; 'displayed': influence as in soft_scores, share x (1 - none),"
    " where the share absent_share of queries has its exemplars taken away",
)

CALIBRATION = pa.schema(
    [
        ENCODER,
        MAPPER,
        FORM,
        SPLIT,
        column("pool_share", FLOAT64, "part of the distractors that was asked; 1: all, as in fitting"),
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
        column("ci_low", FLOAT64, "95 % interval, bootstrap over models: lower end; NaN for one model"),
        column("ci_high", FLOAT64, "upper end"),
        column("n_queries", INT64, "queries of these models"),
        column("n_models", INT64, "customized models behind them"),
    ]
)

RELIABILITY = pa.schema(
    [
        ENCODER,
        MAPPER,
        FORM,
        SPLIT,
        JUDGED,
        column("bin_low", FLOAT64, "lower edge of the influence bin"),
        column("bin_high", FLOAT64, "upper edge"),
        column("mean_influence", FLOAT64, "mean predicted influence in the bin", null=True),
        column("exemplar_share", FLOAT64, "share of true exemplar mass in the bin", null=True),
        column("n_candidates", INT64, "candidates in the bin"),
    ]
)

ATTRIBUTIONS = pa.schema(
    [
        column("image", TEXT, "file of the image that was asked about, as it was given"),
        column("kind", TEXT, "kind of sets whose features and calibrator judged: 'object' or 'style'"),
        ENCODER,
        MAPPER,
        column("rank", INT32, "position by similarity among all that was searched, 1 is best"),
        column("image_id", TEXT, "candidate: row of the pool"),
        column("is_exemplar", BOOL, "whether a model of the run was customized on the candidate"),
        column("similarity", FLOAT32, "cosine"),
        column("influence", FLOAT64, "share of the image x (1 - none), by the run's calibrator"),
        column("none", FLOAT64, "mass of 'none of these', the same in all rows of an image and kind"),
        column("caption", TEXT, "of the candidate, from the pool", null=True),
        column("attribution", TEXT, "whom the candidate is by, from the pool", null=True),
        column("licence", TEXT, "of the candidate, from the pool", null=True),
    ]
)
