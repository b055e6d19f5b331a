"""Pictures of the classes of the exemplar sets, for prior preservation; only what is missing is made."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import device
    from attrib_core.customization import prior
    from attrib_core.customization.reading import read_classes, read_material
    from attrib_core.store import parts, places

    run = Path(snakemake.params.run)
    with places.in_use(run):
        made = prior.images(
            read_classes(Path(snakemake.input.exemplars)),
            snakemake.params.settings,
            read_material(snakemake.input.base_model, snakemake.input.pool, snakemake.input.excluded),
            run=run,
            seed=snakemake.params.seed,
            code=snakemake.params.picture_code,
            device=device.choose(),
        )
        images = Path(snakemake.output.images)
        parts.settle(images, "prior", parts.write(images, "prior", made), run=run)
