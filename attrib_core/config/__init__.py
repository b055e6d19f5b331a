"""The config of a run: its schema, its checks, and what a run of it will take (`planning`)."""
