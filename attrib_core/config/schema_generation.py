"""Sections of the schema for data and generation: parts, pool, exemplars, prompts, synthesis."""

from __future__ import annotations

from typing import Literal

from attrib_core.config.fields import Family, Name, Positive, Section, family, key


class Parts(Section):
    """How the work is divided into jobs. Never changes a result."""

    pool_images: int | None = key(
        None, "pool rows in a job; null: 1,500, doubled until there are at most 160 jobs", ge=1
    )
    exemplar_sets: int | None = key(
        None,
        "exemplar sets in a job, a multiple of `customizer.stack`; null: 16, or a stack if that is more, doubled"
        " until there are at most 160 jobs",
        ge=1,
    )
    decoding_threads: int = key(
        -1,
        "threads of a job that decode images ahead of an encoder; -1: 4 on a GPU, none on a CPU",
        ge=-1,
        le=64,
    )


class Pool(Section):
    """The images among which attribution searches."""

    images: int = key(2992, "number of images from the source", ge=1)
    source: Family = key(
        family("openmoji", size=64, media_each=3, style_objects=12),
        "source of the images: a family of `attrib_core/data/sources` and its options",
    )


class Splits(Section):
    """Shares of the exemplar sets; they sum to 1."""

    train: float = key(0.5, "to train mappers", ge=0, le=1)
    validation: float = key(0.2, "to select among them and to fit calibrators", ge=0, le=1)
    test: float = key(0.3, "to measure", ge=0, le=1)


class Exemplars(Section):
    """The ground truth: the images that models are customized on."""

    object_sets: int = key(48, "exemplar sets of one image of an object", ge=0)
    style_sets: int = key(16, "exemplar sets of several images in one style", ge=0)
    style_set_size: tuple[Positive, Positive] = key(
        (4, 8), "smallest and largest number of images in a style set"
    )
    splits: Splits = key(Splits(), "shares of the exemplar sets")
    unseen_categories: list[str] = key(
        ["bird", "drink", "instrument", "vegetable"],
        "categories whose exemplar sets are in the test split only",
    )
    near_duplicate_distance: int = key(
        4,
        "pool images within this Hamming distance, in bits, of an exemplar's perceptual hash are no distractors;"
        " -1: no image is excluded for that",
        ge=-1,
        le=64,
    )
    held_out_only: bool = key(
        True, "draw exemplars only from images that the base model was not trained on, if it says which"
    )


SplitLists = dict[Literal["train", "validation", "test"], str]
PromptList = str | SplitLists


class Prompts(Section):
    """The prompts for each customized model.

    A list is a text file with one prompt template per line: the name of one in
    `attrib_core/data/prompts_data`, or a path that ends in `.txt`.
    """

    object: dict[Name, PromptList] = key(
        {"scene": "object_scene", "media": "object_media"},
        "lists for object sets by prompt kind: one list, or one for each split",
    )
    style: dict[Name, PromptList] = key(
        {"theme": "style_theme", "object": "style_object"}, "lists for style sets, in the same way"
    )
    prompts_each: int = key(4, "prompts from each list for an exemplar set", ge=1)
    samples_each: int = key(2, "images that a customized model synthesizes for a prompt", ge=1)
    control_samples_each: int = key(
        1, "images that the base model synthesizes for a prompt without the token, as control", ge=1
    )


class Synthesis(Section):
    """How customized models and the control synthesize images."""

    steps: int = key(12, "denoising steps", ge=1, le=1000)
    guidance: float = key(3.0, "scale of classifier-free guidance; 1 disables it", ge=1, le=50)
    solver: Literal["ddim", "dpm++"] = key(
        "ddim", "sampler; dpm++: second-order DPM-Solver++, good with 20 steps, needs eta 0"
    )
    eta: float = key(0.0, "share of DDPM's noise that a DDIM step adds; 0: deterministic", ge=0, le=1)
    batch: int = key(64, "images computed at once; never changes a result", ge=1)
    image_format: Literal["png", "webp", "webp_lossy", "jpeg"] = key(
        "png", "file format of images: png and webp are lossless, the others lossy"
    )
    quality: int = key(90, "quality of webp_lossy and jpeg", ge=1, le=100)
    keep: Literal["all", "sample"] = key(
        "all",
        "which images are kept after use; all; or sample: only those in the report, so that an encoder that is"
        " added later needs them synthesized again. Never changes a result",
    )
