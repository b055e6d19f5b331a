"""Stage `customize`: fine-tune one delta for each exemplar set, many in one stack."""
