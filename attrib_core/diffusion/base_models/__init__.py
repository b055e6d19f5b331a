"""Families of base models: where a diffusers pipeline is found, one file each."""
