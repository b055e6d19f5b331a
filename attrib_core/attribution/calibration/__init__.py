"""Stage `calibrate`: turn similarities into soft influence scores, and evaluate them."""
