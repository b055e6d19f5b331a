"""The recipe of the bundled base model: training from scratch."""
