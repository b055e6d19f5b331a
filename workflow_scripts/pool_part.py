"""Write one part of the pool: validated and hashed rows of the source, and the rejected rows with reasons."""

from pathlib import Path

from attrib_core.runtime.job import job

with job(snakemake):
    from attrib_core.data import pool

    start, stop = snakemake.params.rows
    rows = pool.part(snakemake.params.source, start=start, stop=stop, seed=snakemake.params.seed)
    pool.save(rows, pool_path=Path(snakemake.output.pool), rejects_path=Path(snakemake.output.rejects))
