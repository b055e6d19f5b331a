"""Read, evaluate, tune on and write the published benchmark's files (AbC, arXiv 2306.09345)."""
