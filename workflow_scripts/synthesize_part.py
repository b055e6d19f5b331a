"""Synthesize the images of the models of a part, and their controls by the base model."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.diffusion.pipeline import description
    from attrib_core.diffusion.synthesis.synthesize import synthesize
    from attrib_core.runtime import devices
    from attrib_core.storage import tables
    from attrib_core.storage.store import layout, locks, parts

    images, run = Path(snakemake.output.images), Path(snakemake.params.run)
    with locks.shared(run):
        synthesized = synthesize(
            tables.read(Path(snakemake.input.models), "models").to_pylist(),
            tables.read(Path(snakemake.input.prompts), "prompts").to_pylist(),
            description.read(Path(snakemake.input.base_model)),
            **snakemake.params.settings,
            **snakemake.params.samples,
            batch=snakemake.params.batch,
            run=run,
            seed=snakemake.params.seed,
            code=snakemake.params.image_code,
            device=devices.choose(),
            job=f"{snakemake.rule}/{snakemake.wildcards.part}",
        )
        spans = parts.write(images, "synthesized", synthesized)
        rows = tables.read(images, "synthesized", tables.schema("queries").names)
        tables.write(Path(snakemake.output.queries), "queries", rows)
        if snakemake.params.keep == "all":  # else sample_part removes the images from the store
            parts.consolidate(images, layout.SYNTHESIZED, spans, run=run)
