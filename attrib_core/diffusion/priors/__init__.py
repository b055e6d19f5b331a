"""Families of prior images for prior preservation, one file each: where the images come from."""
