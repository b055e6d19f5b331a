"""Fit one mapper of one encoder: trained on the train split, selected on the validation split."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.features.heads import heads
    from attrib_core.features.mapper import exemplar_sets, tune, tuning_data
    from attrib_core.storage import tables

    inputs, outputs, params = snakemake.input, snakemake.output, snakemake.params
    settings = tune.Settings(**params.settings)
    data = tuning_data.gather(
        exemplars=tables.read(Path(inputs.exemplars), "exemplars", exemplar_sets.EXEMPLAR_COLUMNS),
        exemplar_embeddings=Path(inputs.exemplar_embeddings),
        queries=tables.read_parts(map(Path, inputs.query_rows), "queries", exemplar_sets.QUERY_COLUMNS),
        query_embeddings=[Path(path) for path in inputs.queries],
        pool=[Path(path) for path in inputs.pool],
        kind=params.kind,
        excluded=tables.read(Path(inputs.excluded), "excluded", ["image_id"])["image_id"].to_pylist(),
        validation_distractors=params.validation["distractors"],
        distractors=settings.distractors,
        seed=params.seed,
    )
    tuned = tune.tune(
        data,
        settings,
        encoder=snakemake.wildcards.encoder,
        mapper=snakemake.wildcards.mapper,
        **params.choices,
        seed=params.seed,
    )
    heads.save(Path(outputs.mapper), tuned.heads, tuned.choice)
    tables.write(Path(outputs.curve), "mapper_curve", tuned.curve)
    tables.write_json(Path(outputs.choice), tuned.choice)
