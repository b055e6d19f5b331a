"""A base model's diffusers pipeline, and the steps that training and sampling share."""
