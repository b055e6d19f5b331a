"""Diffusion models: the base pipeline, customization (fine-tuning), synthesis, and the files of deltas."""
