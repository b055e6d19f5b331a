"""Customize the base model on each exemplar set of a part; only missing models are trained."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.data.prompts import MODIFIER_TOKEN
    from attrib_core.diffusion.customization.customize import customize
    from attrib_core.diffusion.customization.inputs import read_part
    from attrib_core.diffusion.pipeline import description
    from attrib_core.runtime import devices
    from attrib_core.storage import tables
    from attrib_core.storage.store import locks

    part, run = snakemake.wildcards.part, Path(snakemake.params.run)
    with locks.shared(run):
        models = customize(
            read_part(Path(snakemake.input.exemplars), int(part), snakemake.params.cut["exemplar_sets"]),
            Path(snakemake.input.prior),
            description.read(Path(snakemake.input.base_model)),
            settings=snakemake.params.settings,
            modifier_token=MODIFIER_TOKEN,
            run=run,
            seed=snakemake.params.seed,
            code=snakemake.params.model_code,
            device=devices.choose(),
            job=f"{snakemake.rule}/{part}",
        )
    tables.write(Path(snakemake.output.models), "models", models)
