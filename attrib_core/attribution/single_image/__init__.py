"""Attribute one image with the encoder, mapper and calibrator of a finished run."""
