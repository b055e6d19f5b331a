"""Families of customization methods, one file each: which weights are trained, and how."""
