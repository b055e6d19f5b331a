"""Fit one mapper of one encoder: trained on the train split, chosen on the validation split."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import heads, tables
    from attrib_core.mapper import material, sets, tuning

    inputs, outputs, params = snakemake.input, snakemake.output, snakemake.params
    settings = tuning.Settings(**params.settings)
    gathered = material.gather(
        exemplars=tables.read(Path(inputs.exemplars), "exemplars", sets.EXEMPLAR_COLUMNS),
        exemplar_embeddings=Path(inputs.exemplar_embeddings),
        queries=tables.read_parts(map(Path, inputs.query_rows), "queries", sets.QUERY_COLUMNS),
        query_embeddings=[Path(path) for path in inputs.queries],
        pool=[Path(path) for path in inputs.pool],
        kind=params.kind,
        excluded=tables.read(Path(inputs.excluded), "excluded", ["image_id"])["image_id"].to_pylist(),
        validation_distractors=params.validation["distractors"],
        distractors=settings.distractors,
        seed=params.seed,
    )
    tuned = tuning.tune(
        gathered,
        settings,
        encoder=snakemake.wildcards.encoder,
        mapper=snakemake.wildcards.mapper,
        **params.choices,
        seed=params.seed,
    )
    heads.save(Path(outputs.mapper), tuned.heads, tuned.choice)
    tables.write(Path(outputs.curve), "mapper_curve", tuned.curve)
    tables.write_json(Path(outputs.choice), tuned.choice)
