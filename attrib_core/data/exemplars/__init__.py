"""Draw exemplar sets from the pool, assign them to splits, exclude rows of the pool that match them."""
