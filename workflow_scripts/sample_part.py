"""Sample the images of a part that the report may show, of each exemplar set, with their controls."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.diffusion.synthesis import report_sample
    from attrib_core.storage import tables
    from attrib_core.storage.store import layout, locks, parts

    images, params = Path(snakemake.input.images), snakemake.params
    run = Path(params.run)
    with locks.shared(run):
        with tables.writer(Path(snakemake.output.sample), tables.schema("synthesized")) as sink:
            for table in report_sample.sample_tables(images, **params.shown, seed=params.seed):
                sink.write(table)
        if params.keep == "sample":
            parts.release(layout.SYNTHESIZED, run=run, job=f"synthesize_part/{snakemake.wildcards.part}")
