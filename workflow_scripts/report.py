"""The report of a run: a self-contained page, its plots and its tables as CSV."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.report import build, data

    made = build.build(
        data.RunFiles.of(dict(snakemake.input.items())),
        **snakemake.params.settings,
        run=snakemake.params.run,
        seed=snakemake.params.seed,
        encoders=snakemake.params.encoders,
        mappers=snakemake.params.mappers,
        ties=snakemake.params.ties,
        sections=snakemake.params.sections,
        benchmarks=Path(snakemake.params.benchmarks),
        jobs=snakemake.params.jobs,
    )
    build.save(made, Path(snakemake.output.page))
