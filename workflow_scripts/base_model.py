"""Describe the base model: path, fingerprint, resolution, what it never saw."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.common import families
    from attrib_core.storage import tables

    family, options = families.split(snakemake.params.settings)
    base = families.load("base_models", family, options, where="base_model")
    tables.write_json(Path(snakemake.output.description), base.as_json())
