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
    # Once the jobs are known and before the first starts; not in a dry run, nor with --no-hooks.
    begin()
    note_what_counts()


onsuccess:
    # Else, after Snakemake's own last lines, a person finds at the bottom what to do.
    ended_well()


rule all:
    # Every file of the run and not its ends alone: a job that is killed, or fails, has lost its old outputs, and where
    # what was made of them is still there Snakemake would not miss them.
    default_target: True
    input:
        rules.base_model.output,
        rules.exemplars.output,
        rules.prior.output,
        rules.measure.output,
        rules.report.output,
        expand(rules.pool_part.output, part=POOL_PARTS),
        expand(rules.customize_part.output, part=SET_PARTS),
        expand(rules.synthesize_part.output.queries, part=SET_PARTS),
        expand(rules.synthesize_part.output.images if KEEP_IMAGES else [], part=SET_PARTS),
        expand(rules.sample_part.output, part=SET_PARTS),
        expand(rules.embed_pool_part.output, encoder=ENCODERS, part=POOL_PARTS),
        expand(rules.embed_queries_part.output, encoder=ENCODERS, part=SET_PARTS),
        expand(rules.embed_exemplars.output, encoder=ENCODERS),
        expand(rules.tune.output, encoder=ENCODERS, mapper=TRAINED_ON),
        expand(rules.index.output, encoder=ENCODERS, mapper=MAPPERS),
        expand(rules.rank.output, encoder=ENCODERS, mapper=MAPPERS),
        expand(rules.calibrate.output, encoder=ENCODERS, mapper=MAPPERS),
