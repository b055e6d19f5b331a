"""Schemas of the tables of images and models: pool, exemplars, prompts, prior, models, synthesized images."""

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
        column("attribution", TEXT, "whom to credit when the image is shown"),
    ]
)

REJECTS = pa.schema(
    [column("image_id", TEXT, "name of the image that was left out"), column("reason", TEXT, "why")]
)

EXEMPLARS = pa.schema(
    [
        column("exemplar_id", TEXT, "name of the exemplar: set and position"),
        SET,
        column("image_id", TEXT, "its row in the pool"),
        column("image", IMAGE, "the image itself, so that later stages need not look it up in the pool"),
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
        column("image_id", TEXT, "row of the pool that is not a distractor"),
        column("reason", TEXT, "exemplar, same_subject, same_style or near_duplicate"),
        column("exemplar_id", TEXT, "the exemplar that it would compete with"),
    ]
)

PRIOR = pa.schema(
    [
        KIND,
        column("category", TEXT, "coarse class noun of the exemplar sets whose models are trained with it"),
        column("prior_index", INT32, "position among the prior images of its class"),
        column("prompt", TEXT, "the prompt of the image, or its caption"),
        column("seed", INT64, "seed of the noise; null for an image that was not generated", null=True),
        column(
            "image", IMAGE, "the encoded image; path: its origin, a row of the pool or a file of a folder"
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
        column("peak_memory", INT64, "peak during the training of its stack", unit="byte"),
        column("threads", INT32, "number of CPU threads"),
        column("device", TEXT, "device of the training, as torch names it"),
        column("device_name", TEXT, "name of the device's model"),
    ]
)

MEASURED = ("seconds", "peak_memory", "threads", "device", "device_name")
"""Columns of `models` with the costs of training; two runs of the same config differ only in these."""

QUERIES = pa.schema(
    [
        QUERY,
        SET,
        column("model_key", TEXT, "the customized model, or the base model's fingerprint for the control"),
        CONDITION,
        PROMPT_KIND,
        column("prompt_index", INT32, "position in the list of its kind"),
        column("sample_index", INT32, "number of the sample of this prompt"),
        column("prompt", TEXT, "the prompt as given to the model"),
        column("seed", INT64, "seed of the noise"),
    ]
)

SYNTHESIZED = pa.schema(
    [
        *QUERIES,
        column("image", IMAGE, "the encoded image"),
        column("image_format", TEXT, "encoding: png, webp, or with the quality: webp_lossy 90, jpeg 90"),
    ]
)
