"""Atomic files, tables with schemas, the layout of a run, and the store that runs share."""
