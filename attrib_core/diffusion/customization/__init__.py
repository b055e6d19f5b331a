"""The stage `customize`: fine-tune one delta for each exemplar set, several sets in one batch."""
