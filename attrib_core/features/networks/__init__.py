"""What encoders with a network share: preprocessing, weights, batches."""
