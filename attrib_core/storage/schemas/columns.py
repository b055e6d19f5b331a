"""Columns that several tables share, and the function that defines a column."""

from __future__ import annotations

import pyarrow as pa

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def column(name: str, kind: pa.DataType, meaning: str, *, unit: str = "", null: bool = False) -> pa.Field:
    """Define a column with its meaning and unit in the field's metadata; nulls are an error unless `null`."""
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    # `datasets` recognises an image column only if Arrow allows nulls in it; `conform` forbids them nevertheless
    return pa.field(name, kind, nullable=null or kind.equals(IMAGE), metadata=metadata)


TEXT, BOOL = pa.string(), pa.bool_()
INT32, INT64, FLOAT32, FLOAT64 = pa.int32(), pa.int64(), pa.float32(), pa.float64()

KIND = column("kind", TEXT, "kind of the set: 'object' (one image) or 'style' (several images of one style)")
SPLIT = column("split", TEXT, "'train', 'validation' or 'test', by exemplar set")
SEEN = column("seen", BOOL, "whether the category also occurs in the train split")
SET = column("exemplar_set", TEXT, "name of the exemplar set; each has one customized model")
QUERY = column("query_id", TEXT, "name of the synthesized image")
CONDITION = column(
    "condition",
    TEXT,
    "'customized': by the model of the set; 'control': by the base model, without the token",
)
PROMPT_KIND = column("prompt_kind", TEXT, "list that the prompt came from: scene, media, theme, object")
ENCODER = column("encoder", TEXT, "name of the encoder in the config")
MAPPER = column(
    "mapper",
    TEXT,
    "'untuned', or kind of heads, whether exemplars and queries share one, and the kind of sets that trained it:"
    " 'linear-object', 'mlp-shared-both'",
)
