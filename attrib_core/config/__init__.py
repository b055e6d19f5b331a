"""The config of a run: its schema and checks, and what a run will take (`planning`)."""
