# From exemplars to a report: `snakemake --cores all`, or `make demo` on a bare machine.
# The config is checked before anything runs; results/<run>/ holds all that a run makes.

from snakemake.utils import min_version

min_version("9.20")

# Snakemake would merge a config of the user's with this one: encoders that the user took out would stay.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/lookup.smk"
include: "rules/pool.smk"
include: "rules/exemplars.smk"
include: "rules/base_model.smk"
include: "rules/base_recipe.smk"
include: "rules/customization.smk"
include: "rules/synthesis.smk"
include: "rules/embedding.smk"
include: "rules/mapper.smk"
include: "rules/index.smk"
include: "rules/ranking.smk"
include: "rules/metrics.smk"
include: "rules/calibration.smk"
include: "rules/report.smk"


onstart:
    # Once the jobs are known and before the first starts; not in a dry run.
    note_what_counts()


rule all:
    default_target: True
    input:
        report=f"{RUN}/report/index.html",
        metrics=f"{RUN}/metrics.parquet",
        soft_scores=expand(
            f"{RUN}/calibration/{{encoder}}/{{mapper}}/soft_scores.parquet", encoder=ENCODERS, mapper=MAPPERS
        ),
        indices=expand(f"{RUN}/indices/{{encoder}}/{{mapper}}.faiss", encoder=ENCODERS, mapper=MAPPERS),
