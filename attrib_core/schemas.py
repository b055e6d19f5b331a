"""The tables that pass between stages: one pyarrow schema each, written down once.

`docs/data.md` is generated from here. Image columns have the layout of the Hugging Face `Image`
feature, so that `datasets` opens them. A new table is an entry of SCHEMAS and one of FILES; it
touches only the stages that name it (see `fingerprint.BY_LITERAL`).
"""

from __future__ import annotations

import json

import pyarrow as pa

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def _field(name: str, kind: pa.DataType, meaning: str, *, unit: str = "", null: bool = False) -> pa.Field:
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    # `datasets` knows a column again only where Arrow allows nulls; `conform` forbids them all the same
    return pa.field(name, kind, nullable=null or kind.equals(IMAGE), metadata=metadata)


_S, _I, _L, _F, _D, _B = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()

_KIND = _field("kind", _S, "what the set shares: 'object' (one picture) or 'style' (several, one style)")
_SPLIT = _field("split", _S, "'train', 'validation' or 'test', by exemplar set")
_SEEN = _field("seen", _B, "whether the category also occurs in the train split")
_SET = _field("exemplar_set", _S, "name of the exemplar set, one customized model each")
_QUERY = _field("query_id", _S, "name of the synthesized image")
_CONDITION = _field(
    "condition", _S, "'customized': by the model of the set; 'control': by the base model, token left out"
)
_PROMPT_KIND = _field("prompt_kind", _S, "list that the prompt came from: scene, media, theme, object")
_ENCODER = _field("encoder", _S, "name of the encoder in the config")
_MAPPER = _field("mapper", _S, "'untuned', or the head: 'linear'")

SCHEMAS: dict[str, pa.Schema] = {
    "pool": pa.schema(
        [
            _field("image_id", _S, "name of the picture, unique in the pool"),
            _field("image", IMAGE, "the encoded picture and the path or address it came from"),
            _field("caption", _S, "what the picture shows, in words"),
            _field("subject", _S, "the object shown, where the source knows it", null=True),
            _field("category", _S, "coarse class of the object, where the source knows it", null=True),
            _field("style", _S, "medium or treatment; null for a plain picture", null=True),
            _field("width", _I, "width of the picture", unit="pixel"),
            _field("height", _I, "height of the picture", unit="pixel"),
            _field("perceptual_hash", _L, "64-bit difference hash of the gray picture"),
            _field("licence", _S, "licence of the picture, SPDX where there is one"),
            _field("attribution", _S, "whom to name when the picture is shown"),
        ]
    ),
    "rejects": pa.schema(
        [
            _field("image_id", _S, "name of the row that was left out"),
            _field("reason", _S, "why"),
        ]
    ),
    "exemplars": pa.schema(
        [
            _field("exemplar_id", _S, "name of the exemplar: set and position"),
            _SET,
            _field("image_id", _S, "its row in the pool"),
            _field("image", IMAGE, "the picture itself, so that later stages need not search the pool"),
            _KIND,
            _field("category", _S, "coarse class noun that prompts use"),
            _field("subject", _S, "the object shown", null=True),
            _field("style", _S, "the treatment that a style set shares", null=True),
            _SPLIT,
            _SEEN,
        ]
    ),
    "prompts": pa.schema(
        [
            _SET,
            _PROMPT_KIND,
            _field("prompt_index", _I, "position in the list of its kind"),
            _field("prompt", _S, "prompt with the modifier token"),
            _field("control_prompt", _S, "the same prompt without the modifier token"),
        ]
    ),
    "excluded": pa.schema(
        [
            _field("image_id", _S, "row of the pool that is no distractor"),
            _field("reason", _S, "exemplar, same_subject, same_style or near_duplicate"),
            _field("exemplar_id", _S, "the exemplar that it would compete with"),
        ]
    ),
    "prior": pa.schema(
        [
            _KIND,
            _field("category", _S, "coarse class noun of the exemplar sets that it is for"),
            _field("prior_index", _I, "position among the prior pictures of its class"),
            _field("prompt", _S, "the prompt that the base model was given"),
            _field("seed", _L, "seed of the noise"),
            _field("image", IMAGE, "the encoded picture"),
        ]
    ),
    "models": pa.schema(
        [
            _field("model_key", _S, "content key: exemplar pixels, settings, base model, code"),
            _SET,
            _field("method", _S, "customization method: the family's name"),
            _field("base_model", _S, "fingerprint of the base model"),
            _field("modifier_token", _S, "the token that the delta adds"),
            _field("delta_path", _S, "delta, relative to the folder of the run"),
            _field("token_path", _S, "token file, relative to the folder of the run"),
            _field("checksum", _S, "SHA-256 of the delta's bytes followed by the token file's"),
            _field("steps", _I, "optimizer steps"),
            _field("loss", _F, "mean training loss over the last tenth of the steps"),
            _field("seconds", _D, "wall time of the stack, divided by its sets", unit="second"),
            _field("device", _S, "device that trained it"),
        ]
    ),
    "synthesized": pa.schema(
        [
            _QUERY,
            _SET,
            _field("model_key", _S, "the customized model, or the base model's fingerprint for the control"),
            _CONDITION,
            _PROMPT_KIND,
            _field("prompt_index", _I, "position in the list of its kind"),
            _field("sample_index", _I, "which of the samples of this prompt"),
            _field("prompt", _S, "the prompt as given to the model"),
            _field("seed", _L, "seed of the noise"),
            _field("image", IMAGE, "the encoded picture"),
        ]
    ),
    "mapper_curve": pa.schema(
        [
            _ENCODER,
            _MAPPER,
            _field("start", _S, "where training began: 'identity' or 'whitened' features"),
            _field("penalty", _D, "weight of the penalty on leaving the orthogonal maps"),
            _field("epoch", _I, "passes over the train split; 0 is the start"),
            _field("loss", _D, "mean contrastive loss of the epoch, without the penalty", null=True),
            _field("drift", _D, "squared distance of H^T H from the identity, both heads added"),
            _field("train_mean_average_precision", _D, "mean over the sets of the train split"),
            _field("validation_mean_average_precision", _D, "mean over the sets of the validation split"),
            _field("chosen", _B, "whether the heads of this row are those that were saved"),
        ]
    ),
    "index_ids": pa.schema(
        [
            _field("row", _L, "number by which the index knows the picture"),
            _field("image_id", _S, "its row in the pool"),
        ]
    ),
    "ranks": pa.schema(
        [
            _ENCODER,
            _MAPPER,
            _QUERY,
            _SET,
            _CONDITION,
            _PROMPT_KIND,
            _field("exemplar_id", _S, "exemplar of the query's own set"),
            _field("similarity", _F, "cosine of query and exemplar"),
            _field("n_above", _L, "distractors that are more similar to the query than this exemplar"),
            _field("n_tied", _L, "distractors that are equally similar: cosines apart by at most 2**-23"),
            _field("n_siblings_above", _I, "other exemplars of the set that are more similar"),
            _field("n_siblings_tied", _I, "other exemplars of the set that are equally similar"),
            _field("n_distractors", _L, "size of the pool that was searched"),
        ]
    ),
    "candidates": pa.schema(
        [
            _ENCODER,
            _MAPPER,
            _QUERY,
            _field("candidate_ids", pa.list_(_S), "the most similar distractors, best first"),
            _field("similarities", pa.list_(_F), "their cosines"),
            _field(
                "histogram",
                pa.list_(_L),
                "count of all other distractors by cosine, equal bins over [-1, 1], lower edge inside",
            ),
            _field("histogram_sums", pa.list_(_D), "sum of the cosines in each bin"),
        ]
    ),
    "metrics": pa.schema(
        [
            _ENCODER,
            _MAPPER,
            _CONDITION,
            _SPLIT,
            _KIND,
            _field("seen", _S, "'all', 'seen' or 'unseen' categories"),
            _field("prompt_kind", _S, "list that the prompts came from, or 'all'"),
            _field(
                "metric",
                _S,
                "recall_at_k, capped_recall_at_k, success_at_k, mean_average_precision, median_rank",
            ),
            _field("k", _I, "cut-off, null where the metric has none", null=True),
            _field("value", _D, "mean over queries; median_rank: the median"),
            _field("ci_low", _D, "95 % interval, bootstrap over models: lower end; NaN for one model"),
            _field("ci_high", _D, "upper end"),
            _field("ceiling", _D, "best value that any ranking could reach"),
            _field("chance", _D, "expected value of a random ranking"),
            _field("n_queries", _L, "queries averaged"),
            _field("n_models", _L, "customized models behind them"),
        ]
    ),
    "comparisons": pa.schema(
        [
            _ENCODER,
            _field(
                "comparison", _S, "'mapper': tuned against untuned; 'condition': customized against control"
            ),
            _MAPPER,
            _CONDITION,
            _field("against_mapper", _S, "mapper of the other side"),
            _field("against_condition", _S, "condition of the other side"),
            _SPLIT,
            _KIND,
            _field("seen", _S, "'all', 'seen' or 'unseen' categories"),
            _field("prompt_kind", _S, "list that the prompts came from, or 'all'"),
            _field("metric", _S, "as in metrics"),
            _field("k", _I, "cut-off, null where the metric has none", null=True),
            _field("value", _D, "metric of this side, over the models that both sides have"),
            _field("against_value", _D, "metric of the other side"),
            _field("difference", _D, "value less against_value"),
            _field(
                "ci_low",
                _D,
                "95 % interval of the difference, paired bootstrap over models; NaN for one model",
            ),
            _field("ci_high", _D, "upper end"),
            _field("p_value", _D, "two-sided, of no difference, from the same resamples; NaN for one model"),
            _field("n_models", _L, "customized models that both sides have"),
        ]
    ),
    "soft_scores": pa.schema(
        [
            _ENCODER,
            _MAPPER,
            _QUERY,
            _field("candidate_id", _S, "exemplar_id or image_id"),
            _field("is_exemplar", _B, "whether the candidate is an exemplar of the query's set"),
            _field("rank", _I, "position by similarity, 1 is best"),
            _field("similarity", _F, "cosine"),
            _field("influence", _D, "share of influence; one query's shares and its tail sum to 1"),
        ]
    ),
    "calibration": pa.schema(
        [
            _ENCODER,
            _MAPPER,
            _SPLIT,
            _field("kind", _S, "'object', 'style', or 'all' sets"),
            _field(
                "metric",
                _S,
                "negative_log_likelihood, expected_calibration_error, brier, exemplar_mass, tail_mass",
            ),
            _field("value", _D, "mean over queries"),
            _field("n_queries", _L, "queries averaged"),
        ]
    ),
    "reliability": pa.schema(
        [
            _ENCODER,
            _MAPPER,
            _SPLIT,
            _field("bin_low", _D, "lower edge of the influence bin"),
            _field("bin_high", _D, "upper edge"),
            _field("mean_influence", _D, "mean predicted influence in the bin", null=True),
            _field("exemplar_share", _D, "share of true exemplar mass in the bin", null=True),
            _field("n_candidates", _L, "candidates in the bin"),
        ]
    ),
}

FILES: dict[str, str] = {
    "pool": "pool/part-*.parquet",
    "rejects": "pool/rejects-*.parquet",
    "exemplars": "exemplars.parquet",
    "prompts": "prompts.parquet",
    "excluded": "excluded.parquet",
    "prior": "prior/images.parquet",
    "models": "models/part-*.parquet",
    "synthesized": "synthesized/part-*.parquet",
    "mapper_curve": "mappers/<encoder>/curve.parquet",
    "index_ids": "indices/<encoder>/<mapper>.ids.parquet",
    "ranks": "ranks/<encoder>/<mapper>.parquet",
    "candidates": "candidates/<encoder>/<mapper>.parquet",
    "metrics": "metrics.parquet",
    "comparisons": "comparisons.parquet",
    "soft_scores": "calibration/<encoder>/<mapper>/soft_scores.parquet",
    "calibration": "calibration/<encoder>/<mapper>/calibration.parquet",
    "reliability": "calibration/<encoder>/<mapper>/reliability.parquet",
    "embeddings": "embeddings/<encoder>/{pool,queries}/part-*.parquet, embeddings/<encoder>/exemplars.parquet",
}
"""Where the files of each table stand, below the folder of the run."""


def embedding_schema(dim: int) -> pa.Schema:
    """Schema of a part of embeddings: image_id and a float32 vector of fixed length."""
    vector = pa.list_(pa.field("item", pa.float32(), nullable=False), dim)
    return pa.schema(
        [
            _field("image_id", _S, "image_id, exemplar_id or query_id of the embedded picture"),
            _field("embedding", vector, "feature vector as the encoder gives it, not normalised"),
        ]
    )


def schema(name: str) -> pa.Schema:
    """The schema of a table by name; KeyError names the tables that exist."""
    try:
        found = SCHEMAS[name]
    except KeyError:
        raise KeyError(f"no table {name!r}; known: {', '.join(SCHEMAS)}") from None
    return _with_features(found) if IMAGE in found.types else found


def _with_features(plain: pa.Schema) -> pa.Schema:
    """The schema with the file metadata by which Hugging Face `datasets` decodes its pictures."""
    features = {
        field.name: {"_type": "Image"}
        if field.type.equals(IMAGE)
        else {"_type": "Value", "dtype": str(field.type)}
        for field in plain
    }
    return plain.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
