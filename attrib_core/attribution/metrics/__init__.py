"""Stage `measure`: Recall@K and average precision from ranks, with intervals, ceilings and chance."""
