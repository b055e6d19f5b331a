"""Tables of images and of what made them: pool, exemplars, prompts, models, synthesized images."""

from __future__ import annotations

import pyarrow as pa

from attrib_core.storage.schemas.columns import (
    CONDITION,
    FLOAT32,
    FLOAT64,
    IMAGE,
    INT32,
    INT64,
    KIND,
    PROMPT_KIND,
    QUERY,
    SEEN,
    SET,
    SPLIT,
    TEXT,
    column,
)

POOL = pa.schema(
    [
        column("image_id", TEXT, "name of the image, unique in the pool"),
        column("image", IMAGE, "the encoded image and the path or address it came from"),
        column("caption", TEXT, "what the image shows, in words"),
        column("subject", TEXT, "the object shown, where the source knows it", null=True),
        column("category", TEXT, "coarse class of the object, where the source knows it", null=True),
        column("style", TEXT, "medium or treatment; null for a plain image", null=True),
        column("width", INT32, "width of the image", unit="pixel"),
        column("height", INT32, "height of the image", unit="pixel"),
        column("perceptual_hash", INT64, "64-bit difference hash of the gray image"),
        column("licence", TEXT, "licence of the image, SPDX where there is one"),
        column("attribution", TEXT, "whom to name when the image is shown"),
    ]
)

REJECTS = pa.schema(
    [
        column("image_id", TEXT, "name of the row that was left out"),
        column("reason", TEXT, "why"),
    ]
)

EXEMPLARS = pa.schema(
    [
        column("exemplar_id", TEXT, "name of the exemplar: set and position"),
        SET,
        column("image_id", TEXT, "its row in the pool"),
        column("image", IMAGE, "the image itself, so that later stages need not search the pool"),
        column("caption", TEXT, "what the image shows, in words, as in the pool"),
        KIND,
        column("category", TEXT, "coarse class noun that prompts use"),
        column("subject", TEXT, "the object shown", null=True),
        column("style", TEXT, "the treatment that a style set shares", null=True),
        SPLIT,
        SEEN,
    ]
)

PROMPTS = pa.schema(
    [
        SET,
        PROMPT_KIND,
        column("prompt_index", INT32, "position in the list of its kind"),
        column("prompt", TEXT, "prompt with the modifier token"),
        column("control_prompt", TEXT, "the same prompt without the modifier token"),
    ]
)

EXCLUDED = pa.schema(
    [
        column("image_id", TEXT, "row of the pool that is no distractor"),
        column("reason", TEXT, "exemplar, same_subject, same_style or near_duplicate"),
        column("exemplar_id", TEXT, "the exemplar that it would compete with"),
    ]
)

PRIOR = pa.schema(
    [
        KIND,
        column("category", TEXT, "coarse class noun of the exemplar sets that it is for"),
        column("prior_index", INT32, "position among the prior images of its class"),
        column("prompt", TEXT, "the prompt that the image was made from, or its caption"),
        column("seed", INT64, "seed of the noise; null for an image that was found", null=True),
        column(
            "image",
            IMAGE,
            "the encoded image; path: where it was found, a row of the pool or a file of a folder",
        ),
    ]
)

MODELS = pa.schema(
    [
        column("model_key", TEXT, "content key: exemplar pixels, settings, base model, code"),
        SET,
        column("method", TEXT, "customization method: the family's name"),
        column("base_model", TEXT, "fingerprint of the base model"),
        column("modifier_token", TEXT, "the token that the delta adds"),
        column("delta_path", TEXT, "delta in the store, relative to the folder of the run"),
        column("token_path", TEXT, "token file, likewise"),
        column("checksum", TEXT, "SHA-256 of the delta's bytes followed by the token file's"),
        column("steps", INT32, "optimizer steps"),
        column("loss", FLOAT32, "mean training loss over the last tenth of the steps"),
        column("seconds", FLOAT64, "wall time of the stack, divided by its sets", unit="second"),
        column(
            "peak_memory",
            INT64,
            "largest memory while its stack was in work: of torch on a GPU, of the process on a CPU",
            unit="byte",
        ),
        column("threads", INT32, "threads that computed on the CPU"),
        column("device", TEXT, "device that trained it, as torch names it"),
        column("device_name", TEXT, "what that device calls itself"),
    ]
)

MEASURED = ("seconds", "peak_memory", "threads", "device", "device_name")
"""Columns of `models` that say what a row took to make; two runs of the same config differ in them alone."""

QUERIES = pa.schema(
    [
        QUERY,
        SET,
        column("model_key", TEXT, "the customized model, or the base model's fingerprint for the control"),
        CONDITION,
        PROMPT_KIND,
        column("prompt_index", INT32, "position in the list of its kind"),
        column("sample_index", INT32, "which of the samples of this prompt"),
        column("prompt", TEXT, "the prompt as given to the model"),
        column("seed", INT64, "seed of the noise"),
    ]
)

SYNTHESIZED = pa.schema(
    [
        *QUERIES,
        column("image", IMAGE, "the encoded image"),
        column(
            "image_format", TEXT, "how it is encoded: png, webp, or with its quality webp_lossy 90, jpeg 90"
        ),
    ]
)
