"""Let the base model draw the classes of the exemplar sets, for prior preservation."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import device, tables
    from attrib_core.customization import prior
    from attrib_core.customization.reading import read_classes
    from attrib_core.diffusion import description

    classes = read_classes(Path(snakemake.input.exemplars))
    asked, sampling = snakemake.params.asked, snakemake.params.sampling
    rows = prior.images(
        prior.plan(classes, asked["lists"], asked["images_each"], snakemake.params.seed),
        description.read(Path(snakemake.input.base_model)),
        **sampling,
        device=device.choose(),
    )
    with tables.writer(Path(snakemake.output.images), tables.schema("prior")) as sink:
        for batch in rows:
            sink.write(batch)
