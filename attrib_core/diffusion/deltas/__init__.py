"""Files of customized weights: write, read, apply, import and export them."""
