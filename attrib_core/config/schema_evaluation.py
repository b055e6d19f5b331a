"""Sections of the config on how sources are found and judged: indices, mappers, ranks, metrics, calibration, report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attrib_core.config.fields import Positive, Section, key


class Index(Section):
    """Indices of the pool for retrieval. Metrics never use them: they search exactly."""

    factory: str = key(
        "auto",
        "FAISS factory string, such as `Flat` or `IVF4096,SQ8`; auto: `Flat` up to 100,000 rows of the pool,"
        " `IVF4096,SQ8` with 128 probes up to 4,000,000, `IVF16384,SQ8` with 256 beyond",
    )
    queries: int = key(64, "queries on which the index is held against exact search", ge=1)
    k: int = key(10, "neighbours compared in that check", ge=1)
    probes: int | None = key(
        None,
        "inverted lists searched for a query, where the index has such; null: 1 in 32, or as auto says",
        ge=1,
    )
    train_rows: int = key(
        262144, "pool rows at most on which the index is trained, where it needs that", ge=1
    )


class Mapper(Section):
    """Heads on frozen encoders, for real and for synthesized images."""

    head: Literal["linear", "mlp", "channel"] = key(
        "linear",
        "form of the heads: a linear map; a residual network of one hidden layer; a factor a dimension",
    )
    shared: bool = key(False, "whether one head maps real and synthesized images; else each have their own")
    trained_on: list[Literal["object", "style", "both"]] = key(
        ["object", "style"],
        "kinds of exemplar sets, each with a mapper of its own that is trained and chosen on these alone (at least"
        " 2 in train and 1 in validation); every mapper ranks all queries",
        min_length=1,
    )
    temperature: float = key(0.1, "temperature of the contrastive loss", gt=0, le=10)
    learning_rate: float = key(0.001, "learning rate of the optimizer", gt=0, le=1)
    epochs: int = key(60, "passes over the train split, at most", ge=1)
    patience: int = key(10, "epochs without progress on the validation split before training stops", ge=1)
    batch_sets: int = key(32, "exemplar sets of one step", ge=2)
    images_each: int = key(2, "pairs of exemplar and query from each of them", ge=1)
    rank: int = key(256, "directions of the embedding space that a linear head or an mlp may change", ge=1)
    hidden: int = key(256, "hidden units of an mlp", ge=1)
    distractors: int = key(
        0,
        "pool images that a step takes as further negatives; test queries are ranked among them too",
        ge=0,
    )
    validation_distractors: int = key(
        2000, "pool images among which exemplars are sought in validation", ge=1
    )
    penalties: list[Annotated[float, Field(ge=0)]] = key(
        [0.1, 1.0, 10.0],
        "weights of the penalty on leaving the orthogonal maps (of an mlp: on what its units add); the best on the"
        " validation split is taken",
        min_length=1,
    )
    starts: list[Literal["identity", "whitened", "within"]] = key(
        ["identity", "whitened", "within"],
        "where training may begin, the best on the validation split: features as they are; whitened by the"
        " pool; whitened by what varies within the train sets. A channel head takes identity alone",
        min_length=1,
    )
    shrinkages: list[Annotated[float, Field(gt=0, le=1)]] = key(
        [0.1, 0.3],
        "shares of a multiple of the identity in the covariance by which features are whitened; the best on"
        " the validation split is taken",
        min_length=1,
    )


class Ranking(Section):
    """Exact ranks of the exemplars among the distractors."""

    top_k: int = key(100, "candidates kept for each query; calibration treats the rest as a histogram", ge=1)
    bins: int = key(2048, "bins of that histogram over cosines from -1 to 1", ge=2)
    query_block: int = key(512, "queries of one matrix product; never changes a result", ge=1)
    pool_block: int = key(16384, "pool rows of one matrix product; never changes a result", ge=1)
    query_group: int = key(
        4096, "queries for which the pool is read once; bounds memory, never changes a result", ge=1
    )


class Metrics(Section):
    """What the tables report."""

    recall_ks: list[Positive] = key([5, 10, 100], "cut-offs of recall and success", min_length=1)
    bootstrap: int = key(1000, "resamplings of models behind the 95 % intervals", ge=10)
    ties: Literal["half", "above", "below"] = key(
        "half",
        "how distractors that tie with an exemplar count: half of them as ranked above it; all above"
        " (pessimistic); all below (optimistic)",
    )
    alike: list[list[str]] = key(
        [
            ["animal", "bird", "insect", "sea animal"],
            ["dessert", "drink", "food", "fruit", "vegetable"],
            ["device", "household item", "instrument", "sport", "tool", "toy"],
            ["building", "vehicle"],
        ],
        "groups of categories within which unseen ones are compared with seen ones; a category that is in no"
        " group is alike to itself alone",
    )


class Calibration(Section):
    """Soft influence scores."""

    shown: int = key(
        100, "candidates of a query that the table of soft scores lists, at most ranking.top_k", ge=1
    )
    forms: list[Literal["pool_aware", "published", "published_whole_pool"]] = key(
        ["pool_aware", "published", "published_whole_pool"],
        "forms to fit and compare; soft scores are of the first. pool_aware: the whole pool in the sum, a"
        " floor that knows its size, 'none of these'; published: as published, training included, on the"
        " ranking.top_k most similar candidates (how many is not published);"
        " published_whole_pool: that form, fitted with the whole pool in the sum",
        min_length=1,
    )
    absent_share: float = key(
        0.5, "share of queries whose sources are taken not to be in the pool, for 'none of these'", gt=0, lt=1
    )
    pool_shares: list[Annotated[float, Field(gt=0, lt=1)]] = key(
        [0.25, 0.0625], "parts of the pool on which calibrators that were fitted on all of it are judged too"
    )


class Report(Section):
    """The page of results."""

    gallery_sets: int = key(6, "exemplar sets of each kind shown with images", ge=0)
    samples: int = key(4, "synthesized images shown for each of them", ge=1)
    retrievals: int = key(5, "retrieved candidates shown for each image", ge=1)
