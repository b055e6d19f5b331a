"""Names that every wing agrees on."""

SPLITS = ("train", "validation", "test")
KINDS = ("object", "style")
"""Kinds of exemplar sets."""
UNTUNED = "untuned"
"""The mapper's name where embeddings are used as they are."""
