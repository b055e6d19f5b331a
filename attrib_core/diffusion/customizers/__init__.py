"""Families of customization methods: which weights are trained and how, one file each."""
