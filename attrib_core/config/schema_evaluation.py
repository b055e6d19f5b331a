"""Sections of the schema for attribution and evaluation: index, mapper, ranking, metrics, calibration, report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attrib_core.config.fields import Positive, Section, key


class Index(Section):
    """Indices of the pool for retrieval. Metrics do not use them: ranking is exact."""

    factory: str = key(
        "auto",
        "FAISS factory string, such as `Flat` or `IVF4096,SQ8`; auto: `Flat` up to 100,000 rows of the pool,"
        " `IVF4096,SQ8` with 128 probes up to 4,000,000, `IVF16384,SQ8` with 256 beyond",
    )
    queries: int = key(64, "queries on which the index is compared with exact search", ge=1)
    k: int = key(10, "neighbours compared for each of these queries", ge=1)
    probes: int | None = key(
        None, "inverted lists searched for a query, if the index has any; null: 1 in 32, or as for auto", ge=1
    )
    train_rows: int = key(
        262144, "largest number of pool rows on which an index is trained, if it needs training", ge=1
    )


class Mapper(Section):
    """Trainable heads on frozen encoders, for real and for synthesized images."""

    head: Literal["linear", "mlp", "channel"] = key(
        "linear",
        "kind of head: a linear map; a residual network with one hidden layer; a factor for each dimension",
    )
    shared: bool = key(False, "whether one head maps real and synthesized images; otherwise each has its own")
    trained_on: list[Literal["object", "style", "both"]] = key(
        ["object", "style"],
        "kinds of exemplar sets; for each, a mapper is trained and selected on these sets only (at least"
        " 2 in train and 1 in validation); every mapper ranks all queries",
        min_length=1,
    )
    temperature: float = key(0.1, "temperature of the contrastive loss", gt=0, le=10)
    learning_rate: float = key(0.001, "learning rate of the optimizer", gt=0, le=1)
    epochs: int = key(60, "largest number of passes over the train split", ge=1)
    patience: int = key(10, "epochs without improvement on the validation split before training stops", ge=1)
    batch_sets: int = key(32, "exemplar sets in a training step", ge=2)
    images_each: int = key(2, "pairs of exemplar and query from each set", ge=1)
    rank: int = key(256, "directions of the embedding space that a linear head or an mlp may change", ge=1)
    hidden: int = key(256, "hidden units of an mlp", ge=1)
    distractors: int = key(
        0, "pool images used as further negatives in a step; test queries are ranked among them too", ge=0
    )
    validation_distractors: int = key(
        2000, "pool images among which exemplars are ranked in validation", ge=1
    )
    penalties: list[Annotated[float, Field(ge=0)]] = key(
        [0.1, 1.0, 10.0],
        "weights of the penalty on the distance from an orthogonal map (of an mlp: on its residual); the best on"
        " the validation split is selected",
        min_length=1,
    )
    starts: list[Literal["identity", "whitened", "within"]] = key(
        ["identity", "whitened", "within"],
        "initializations of training, of which the best on the validation split is selected: the identity;"
        " whitening by the pool; whitening by the variation within the train sets. A channel head only has"
        " identity",
        min_length=1,
    )
    shrinkages: list[Annotated[float, Field(gt=0, le=1)]] = key(
        [0.1, 0.3],
        "shrinkages of the whitening covariance towards a multiple of the identity; the best on the validation"
        " split is selected",
        min_length=1,
    )


class Ranking(Section):
    """Exact ranks of the exemplars among the distractors."""

    top_k: int = key(100, "candidates kept for each query; calibration uses a histogram of the rest", ge=1)
    bins: int = key(2048, "bins of that histogram of cosines, from -1 to 1", ge=2)
    query_block: int = key(512, "queries of one matrix product; never changes a result", ge=1)
    pool_block: int = key(32768, "pool rows of one matrix product; never changes a result", ge=1)
    query_group: int = key(
        4096, "queries for which the pool is read once; bounds memory, never changes a result", ge=1
    )


class Metrics(Section):
    """Metrics and their intervals."""

    recall_ks: list[Positive] = key([5, 10, 100], "cut-offs of recall and success", min_length=1)
    bootstrap: int = key(
        1000, "random draws for a p-value, where there are too many models to try all", ge=10
    )
    ties: Literal["half", "above", "below", "expected"] = key(
        "half",
        "how distractors that tie with an exemplar count: half of them as ranked above it; all above"
        " (pessimistic); all below (optimistic); or each metric as its expectation over random orders of ties, so"
        " that features that do not tell images apart are exactly at chance (in the median rank, where all sets have as"
        " many exemplars)",
    )
    alike: list[list[str]] = key(
        [
            ["animal", "bird", "insect", "sea animal"],
            ["dessert", "drink", "food", "fruit", "vegetable"],
            ["device", "household item", "instrument", "sport", "tool", "toy"],
            ["building", "vehicle"],
        ],
        "groups of similar categories, within which unseen ones are compared with seen ones; a category in no"
        " group is a group by itself",
    )


class Calibration(Section):
    """Soft influence scores."""

    shown: int = key(100, "candidates of a query in the table of soft scores, at most ranking.top_k", ge=1)
    forms: list[Literal["pool_aware", "published", "published_whole_pool"]] = key(
        ["pool_aware", "published", "published_whole_pool"],
        "kinds of calibrators to fit and compare; soft scores are those of the first. pool_aware: normalizes"
        " over the entire pool, with a floor that depends on the pool's size, and estimates 'none of these';"
        " published: as published, including its training, on the ranking.top_k most similar candidates (their"
        " number is not published); published_whole_pool: the published formula, fitted over the entire pool",
        min_length=1,
    )
    absent_share: float = key(
        0.5, "assumed share of queries whose sources are not in the pool, for 'none of these'", gt=0, lt=1
    )
    pool_shares: list[Annotated[float, Field(gt=0, lt=1)]] = key(
        [0.25, 0.0625], "shares of the pool on which calibrators fitted on the entire pool are evaluated too"
    )


class Report(Section):
    """The report page."""

    gallery_sets: int = key(6, "exemplar sets of each kind shown with images", ge=0)
    samples: int = key(4, "synthesized images shown for each of them", ge=1)
    retrievals: int = key(5, "retrieved candidates shown for each of these images", ge=1)
