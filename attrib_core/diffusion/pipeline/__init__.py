"""The parts of a diffusers pipeline, and the steps that training and sampling share."""
