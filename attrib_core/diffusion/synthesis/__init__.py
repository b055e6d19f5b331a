"""The stage `synthesize`: sample images from customized models, and from the base model as control."""
