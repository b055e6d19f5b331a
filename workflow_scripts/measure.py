"""Metrics of every encoder and mapper with their intervals, of all and of finer groups, and comparisons."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import metrics, tables

    inputs, outputs, settings = snakemake.input, snakemake.output, snakemake.params.settings
    measured = metrics.systems(
        [(path, tables.read(Path(path), "ranks", metrics.RANK_COLUMNS)) for path in inputs.ranks],
        tables.read(Path(inputs.exemplars), "exemplars", [*metrics.EXEMPLAR_COLUMNS, "category"]),
        recall_ks=settings["recall_ks"],
        ties=settings["ties"],
    )
    bootstrap = {"resamples": settings["bootstrap"], "seed": snakemake.params.seed}
    tables.write(Path(outputs.metrics), "metrics", list(metrics.measure(measured, **bootstrap)))
    tables.write(Path(outputs.comparisons), "comparisons", list(metrics.compare(measured, **bootstrap)))
    tables.write(Path(outputs.strata), "strata", list(metrics.strata(measured, **bootstrap)))
    matched = metrics.matched(measured, alike=settings["alike"], **bootstrap)
    tables.write(Path(outputs.matched), "matched", list(matched))
