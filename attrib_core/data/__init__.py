"""The images and prompts of a run: sources, the pool, exemplar sets and prompt lists."""
