"""Rank the pool for each query, measure retrieval, calibrate influence, attribute one image."""
