"""From images to vectors: encoders, embedding, mapper heads, the nearest-neighbour index."""
