"""What encoders with a neural network share: image preprocessing, weights, batched forward passes."""
