"""Stage `exemplars`: draw exemplar sets from the pool, assign splits, exclude look-alikes."""
