"""Deltas: what customization changed. Their files, how they are applied, and other tools' layouts."""
