"""The config, key by key: meaning, type, default and bounds.

The defaults are the demo, so an empty config runs it; `config.yaml` shows the same values
and `docs/config.md` is generated from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


def key(default: Any, meaning: str, **bounds: Any) -> Any:
    """A documented key of the config."""
    return Field(default, description=meaning, **bounds)


class Section(BaseModel):
    """A section: unknown keys are errors, defaults are checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Family(BaseModel):
    """A section that names a family; its other keys are the options of that family."""

    model_config = ConfigDict(extra="allow", frozen=True)
    family: str = Field(description="name of a family: a file in the folder of its kind")


def family(name: str, **options: Any) -> Family:
    """A family's section, as the config would write it."""
    return Family.model_validate({"family": name} | options)


class Parts(Section):
    """How the work is cut into jobs. Never changes a result."""

    pool_images: int | None = key(
        None, "rows of the pool in a job; null: 1,500, doubled until the pool is at most 160 jobs", ge=1
    )
    exemplar_sets: int | None = key(
        None,
        "exemplar sets in a job, a whole number of stacks (`customizer.stack`); null: 16, or a stack where that is"
        " more, doubled until the sets are at most 160 jobs",
        ge=1,
    )
    decoding_threads: int = key(
        -1,
        "threads of a job that decode pictures ahead of an encoder; -1: 4 where it computes on a GPU, none on a CPU",
        ge=-1,
        le=64,
    )


class Pool(Section):
    """The pictures that attribution searches."""

    images: int = key(2992, "rows asked of the source", ge=1)
    source: Family = key(
        family("openmoji", size=64, media_each=3, style_objects=12),
        "where the pictures come from: a family of `attrib_core/sources` and its options",
    )


class Splits(Section):
    """Shares of the exemplar sets; they sum to 1."""

    train: float = key(0.5, "to train mappers", ge=0, le=1)
    validation: float = key(0.2, "to choose among them and to fit calibrators", ge=0, le=1)
    test: float = key(0.3, "to measure", ge=0, le=1)


class Exemplars(Section):
    """The ground truth: the pictures that models are customized on."""

    object_sets: int = key(48, "exemplar sets of one picture of an object", ge=0)
    style_sets: int = key(16, "exemplar sets of several pictures in one style", ge=0)
    style_set_size: tuple[Positive, Positive] = key(
        (4, 8), "smallest and largest number of pictures in a style set"
    )
    splits: Splits = key(Splits(), "shares of the exemplar sets")
    unseen_categories: list[str] = key(
        ["bird", "drink", "instrument", "vegetable"],
        "categories whose exemplar sets are in the test split only",
    )
    near_duplicate_distance: int = key(
        4,
        "pool pictures within so many bits of an exemplar's perceptual hash are no distractors; -1: none for that",
        ge=-1,
        le=64,
    )
    held_out_only: bool = key(
        True, "draw exemplars only from what the base model never saw, where the base model says what that is"
    )


SplitLists = dict[Literal["train", "validation", "test"], str]
PromptList = str | SplitLists


class Prompts(Section):
    """What is asked of each customized model.

    A list is a text file, a prompt template a line: a name of `attrib_core/prompts_data`, or a
    path that ends in `.txt`.
    """

    object: dict[Name, PromptList] = key(
        {"scene": "object_scene", "media": "object_media"},
        "lists for object sets: prompt kind to list, or to a list for each split",
    )
    style: dict[Name, PromptList] = key(
        {"theme": "style_theme", "object": "style_object"}, "lists for style sets, likewise"
    )
    prompts_each: int = key(4, "prompts of each list that a set gets", ge=1)
    samples_each: int = key(2, "pictures that a customized model makes for a prompt", ge=1)
    control_samples_each: int = key(
        1, "pictures that the base model makes for a prompt without the token, the control", ge=1
    )


class Synthesis(Section):
    """How customized models and the control make pictures."""

    steps: int = key(12, "denoising steps", ge=1, le=1000)
    guidance: float = key(3.0, "scale of classifier-free guidance; 1 is none", ge=1, le=50)
    solver: Literal["ddim", "dpm++"] = key(
        "ddim", "how steps are taken; dpm++: DPM-Solver++ of second order, good in 20 steps, with eta 0"
    )
    eta: float = key(0.0, "share of DDPM's noise that a DDIM step adds; 0 adds none", ge=0, le=1)
    batch: int = key(64, "pictures computed at once; never changes a result", ge=1)
    image_format: Literal["png", "webp", "webp_lossy", "jpeg"] = key(
        "png", "how pictures are encoded: png and webp without loss, the others with it"
    )
    quality: int = key(90, "quality of webp_lossy and jpeg", ge=1, le=100)
    keep: Literal["all", "sample"] = key(
        "all",
        "which pictures outlive their use; all: every one, once; sample: those that the report shows, so that"
        " an encoder that is added later has them drawn anew. Never changes a result",
    )


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
    """Heads on frozen encoders, for real and for synthesized pictures."""

    head: Literal["linear", "mlp", "channel"] = key(
        "linear",
        "form of the heads: a linear map; a residual network of one hidden layer; a factor a dimension",
    )
    shared: bool = key(False, "whether one head maps real and synthesized pictures; else each have their own")
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
        "pool pictures that a step takes as further negatives; test queries are ranked among them too",
        ge=0,
    )
    validation_distractors: int = key(
        2000, "pool pictures among which exemplars are sought in validation", ge=1
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
    ties: Literal["half", "best", "worst"] = key(
        "half", "how equally similar distractors count: half of them above, none, or all"
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

    gallery_sets: int = key(6, "exemplar sets of each kind shown with pictures", ge=0)
    samples: int = key(4, "synthesized pictures shown for each of them", ge=1)
    retrievals: int = key(5, "retrieved candidates shown for each picture", ge=1)


EFFICIENTNET = {
    "family": "timm",
    "architecture": "tf_efficientnet_lite0",
    "weights": "efficientnet-lite0",
}


WITHOUT_EFFECT = {
    "run": "names the folder of the run, so that another name is another run",
    "parts.pool_images": "cuts the pool into jobs: the parts are other files, with the same rows in all",
    "parts.exemplar_sets": "cuts the exemplar sets into jobs: the parts are other files, with the same rows in all",
    "parts.decoding_threads": "how many threads decode pictures ahead of an encoder",
    "synthesis.batch": "how many pictures are computed at once",
    "synthesis.keep": "whether pictures stay once everything that reads them is made",
    "ranking.query_block": "rows of one matrix product of exact sums",
    "ranking.pool_block": "columns of one matrix product of exact sums",
    "ranking.query_group": "queries for which the pool is read once",
}
"""Keys that decide how a run is done and nothing about its results, each with the reason."""


class Config(Section):
    """A run, from pool to report."""

    run: str = key("demo", "name of the run; everything of it stands in `results/<run>`", pattern=NAME)
    seed: int = key(2306, "seed that every random number of the run hangs on", ge=0)
    parts: Parts = key(Parts(), "how the work is cut into jobs")
    pool: Pool = key(Pool(), "the pictures that attribution searches")
    exemplars: Exemplars = key(Exemplars(), "the ground truth")
    prompts: Prompts = key(Prompts(), "what is asked of each customized model")
    base_model: Family = key(
        family("bundled"),
        "the model that is customized: a family of `attrib_core/base_models` and its options",
    )
    customizer: Family = key(
        family("custom_diffusion"),
        "how a model is customized: a family of `attrib_core/customizers` and its options",
    )
    prior: Family = key(
        family("generated"),
        "pictures of the classes for prior preservation, where `customizer.prior_batch` is not 0: a family of"
        " `attrib_core/priors` and its options",
    )
    synthesis: Synthesis = key(Synthesis(), "how pictures are made")
    encoders: dict[Name, Family] = key(
        {
            "pixel": family("pixel", size=16),
            "layout": family(
                "fusion",
                parts={
                    "colours": {"family": "pixel", "size": 16},
                    "shapes": EFFICIENTNET | {"stages": [2], "cells": 4},
                },
            ),
            "look": family(
                "fusion",
                parts={
                    "palette": {"family": "palette"},
                    "places": {"family": "pixel", "size": 8, "centred": False},
                    "texture": EFFICIENTNET | {"stages": [1, 3], "deviation": True},
                },
            ),
        },
        "encoders by a name of your own: each a family of `attrib_core/encoders` and its options, or `preset` and"
        " what differs from it",
        min_length=1,
    )
    index: Index = key(Index(), "indices of the pool for retrieval")
    mapper: Mapper = key(Mapper(), "heads on frozen encoders")
    ranking: Ranking = key(Ranking(), "exact ranks")
    metrics: Metrics = key(Metrics(), "what the tables report")
    calibration: Calibration = key(Calibration(), "soft influence scores")
    report: Report = key(Report(), "the page of results")
