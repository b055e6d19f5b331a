"""Train the bundled base model from scratch."""
