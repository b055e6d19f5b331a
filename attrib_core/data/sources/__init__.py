"""Families of sources: where the images of a pool come from, one file each."""
