"""Families of sources: they read or draw the images of a pool, one file each."""
