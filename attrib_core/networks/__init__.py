"""What encoders that run a network share: how a picture enters, how weights are read, how batches run."""
