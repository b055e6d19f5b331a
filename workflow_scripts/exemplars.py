"""The plan of the experiment: exemplar sets with their splits, their prompts, what they exclude."""

import json
from pathlib import Path

from attrib_core.runtime.job import job

with job(snakemake):
    from attrib_core.data import prompts
    from attrib_core.data.exemplars import plan
    from attrib_core.storage import tables

    base_model = json.loads(Path(snakemake.input.base_model).read_text("utf-8"))
    made = plan.plan(
        [Path(part) for part in snakemake.input.pool],
        **snakemake.params.settings,
        held_out=base_model.get("held_out"),
        source=snakemake.params.source,
        seed=snakemake.params.seed,
    )
    asked = prompts.expand(
        made.exemplars,
        made.captions,
        **snakemake.params.prompts,
        seed=snakemake.params.seed,
    )
    tables.write(Path(snakemake.output.exemplars), "exemplars", made.exemplars)
    tables.write(Path(snakemake.output.prompts), "prompts", asked)
    tables.write(Path(snakemake.output.excluded), "excluded", made.excluded)
