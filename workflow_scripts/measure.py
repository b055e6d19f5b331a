"""Metrics of every encoder and mapper with their intervals, and comparisons between them."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import metrics, tables

    inputs, outputs, settings = snakemake.input, snakemake.output, snakemake.params.settings
    measured = metrics.systems(
        [(path, tables.read(Path(path), "ranks", metrics.RANK_COLUMNS)) for path in inputs.ranks],
        tables.read(Path(inputs.exemplars), "exemplars", metrics.EXEMPLAR_COLUMNS),
        recall_ks=settings["recall_ks"],
        ties=settings["ties"],
    )
    bootstrap = {"resamples": settings["bootstrap"], "seed": snakemake.params.seed}
    tables.write(Path(outputs.metrics), "metrics", list(metrics.measure(measured, **bootstrap)))
    tables.write(Path(outputs.comparisons), "comparisons", list(metrics.compare(measured, **bootstrap)))
