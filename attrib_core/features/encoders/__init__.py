"""Families of encoders: from an image, a text or both to a vector, one file or folder each."""
