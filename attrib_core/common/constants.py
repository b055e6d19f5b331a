"""Names that several wings share."""

SPLITS = ("train", "validation", "test")
KINDS = ("object", "style")
"""Kinds of exemplar sets."""
UNTUNED = "untuned"
"""Name of the mapper that leaves embeddings as they are."""
