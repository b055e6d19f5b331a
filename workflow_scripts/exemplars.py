"""Design the experiment: exemplar sets with their splits, their prompts, and the pool rows they exclude."""

import json
from pathlib import Path

from attrib_core.runtime.job import job

with job(snakemake):
    from attrib_core.data import prompts
    from attrib_core.data.exemplars import plan
    from attrib_core.storage import tables

    base_model = json.loads(Path(snakemake.input.base_model).read_text("utf-8"))
    design = plan.plan(
        [Path(part) for part in snakemake.input.pool],
        **snakemake.params.settings,
        held_out=base_model.get("held_out"),
        source=snakemake.params.source,
        seed=snakemake.params.seed,
    )
    rendered = prompts.expand(
        design.exemplars,
        design.captions,
        **snakemake.params.prompts,
        seed=snakemake.params.seed,
    )
    tables.write(Path(snakemake.output.exemplars), "exemplars", design.exemplars)
    tables.write(Path(snakemake.output.prompts), "prompts", rendered)
    tables.write(Path(snakemake.output.excluded), "excluded", design.excluded)
