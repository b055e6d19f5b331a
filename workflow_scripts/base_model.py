"""Write the description of the base model: path, fingerprint, resolution, and what it was not trained on."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.common import families
    from attrib_core.storage import tables

    family, options = families.split(snakemake.params.settings)
    model = families.load("base_models", family, options, where="base_model")
    tables.write_json(Path(snakemake.output.description), model.as_json())
