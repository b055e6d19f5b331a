"""Collect the images for prior preservation, for the classes of the exemplar sets; only missing ones are generated."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.diffusion.customization import prior_images
    from attrib_core.diffusion.customization.inputs import read_classes, read_prior_inputs
    from attrib_core.runtime import devices
    from attrib_core.storage.store import layout, locks, parts

    run = Path(snakemake.params.run)
    with locks.shared(run):
        prior = prior_images.images(
            read_classes(Path(snakemake.input.exemplars)),
            snakemake.params.settings,
            read_prior_inputs(snakemake.input.base_model, snakemake.input.pool, snakemake.input.excluded),
            run=run,
            seed=snakemake.params.seed,
            code=snakemake.params.image_code,
            device=devices.choose(),
        )
        images = Path(snakemake.output.images)
        parts.consolidate(images, layout.PRIOR, parts.write(images, "prior", prior), run=run)
