"""Metrics of every encoder and mapper with their intervals, of all and of finer groups, and comparisons."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.attribution.metrics import measure
    from attrib_core.storage import tables

    inputs, outputs, settings = snakemake.input, snakemake.output, snakemake.params.settings
    measured = measure.systems(
        [(path, tables.read(Path(path), "ranks", measure.RANK_COLUMNS)) for path in inputs.ranks],
        tables.read(Path(inputs.exemplars), "exemplars", [*measure.EXEMPLAR_COLUMNS, "category"]),
        recall_ks=settings["recall_ks"],
        ties=settings["ties"],
    )
    draws = {"resamples": settings["bootstrap"], "seed": snakemake.params.seed}
    tables.write(Path(outputs.metrics), "metrics", list(measure.measure(measured)))
    tables.write(Path(outputs.comparisons), "comparisons", list(measure.compare(measured, **draws)))
    tables.write(Path(outputs.strata), "strata", list(measure.strata(measured)))
    matched = measure.matched(measured, alike=settings["alike"], **draws)
    tables.write(Path(outputs.matched), "matched", list(matched))
