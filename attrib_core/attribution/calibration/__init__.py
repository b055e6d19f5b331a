"""Stage `calibrate`: turn similarities into shares of influence, and evaluate them."""
