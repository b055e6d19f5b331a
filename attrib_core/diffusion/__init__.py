"""Diffusion models: the base pipeline, customization, synthesis, and the files of deltas."""
