"""Write the report of a run: a self-contained page, its plots, and its tables as CSV."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.report import build, run_results

    report = build.build(
        run_results.RunFiles.of(dict(snakemake.input.items())),
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
    build.save(report, Path(snakemake.output.page))
