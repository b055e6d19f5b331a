"""Families of prior images for prior preservation: where they come from, one file each."""
