"""Stage `rank`: exact ranks, top candidates and similarity histograms, streamed over the pool."""
