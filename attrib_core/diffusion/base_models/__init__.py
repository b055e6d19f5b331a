"""Families of base models, one file each: where a diffusers pipeline is found."""
