"""Where images come from: sources, the pool, the exemplars, and the prompts."""
