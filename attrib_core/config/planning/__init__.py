"""Estimate models, images, bytes and device hours before a run; report how far a run is."""
