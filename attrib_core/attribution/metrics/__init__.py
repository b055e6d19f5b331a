"""Stage `measure`: recall at k and average precision from ranks, with intervals, ceilings and chance."""
