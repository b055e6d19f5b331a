"""Make the pictures of a part's models, and their controls by the base model."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import device, tables
    from attrib_core.diffusion import description
    from attrib_core.synthesis.part import synthesize

    made = synthesize(
        tables.read(Path(snakemake.input.models), "models").to_pylist(),
        tables.read(Path(snakemake.input.prompts), "prompts").to_pylist(),
        description.read(Path(snakemake.input.base_model)),
        **snakemake.params.settings,
        **snakemake.params.samples,
        batch=snakemake.params.batch,
        run=Path(snakemake.params.run),
        seed=snakemake.params.seed,
        code=snakemake.params.picture_code,
        device=device.choose(),
    )
    with tables.writer(Path(snakemake.output.images), tables.schema("synthesized")) as sink:
        for table in made:
            sink.write(table)
