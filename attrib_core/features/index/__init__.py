"""Stage `index`: build a FAISS index of the pool and measure its recall against exact search."""
