"""The published benchmark's files (arXiv 2306.09345): read, evaluated, written.

`stored` opens feature files, `cases` the test features and their JSON, `mappers` the mapper
checkpoints and `checkpoints` writes them; `tune` gathers what a mapper is trained on, `evaluation` ranks and
measures, `export` writes a run in the same layout, `commands` is the command line.
"""
