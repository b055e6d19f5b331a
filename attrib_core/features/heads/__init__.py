"""Mapper heads on embeddings (linear, channel, MLP): apply, read and write them."""
