"""Stage `embed`: compute, store and stream the embeddings of image tables."""
