"""Build the index of the pool for one encoder and mapper, and measure its recall against exact search."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.features.heads import heads
    from attrib_core.features.index import build
    from attrib_core.storage import tables

    inputs, outputs, params = snakemake.input, snakemake.output, snakemake.params
    pool, queries, mapper = (
        [Path(path) for path in paths] for paths in (inputs.pool, inputs.queries, inputs.mapper)
    )
    excluded = tables.read(Path(inputs.excluded), "excluded", ["image_id"])["image_id"].to_pylist()
    shared = {"heads": heads.load(mapper[0] if mapper else None), "excluded": excluded, "seed": params.seed}

    built = build.build(pool, Path(outputs.faiss), **shared, **params.settings)
    build.save_ids(built, Path(outputs.ids))
    report = {"encoder": snakemake.wildcards.encoder, "mapper": snakemake.wildcards.mapper}
    report |= build.describe(built) | {"excluded": len(excluded)}
    report |= build.recall_against_exact(built, pool, queries, **shared, **params.check)
    tables.write_json(Path(outputs.report), report)
