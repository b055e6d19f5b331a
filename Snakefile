# The workflow, from the pool to the report: `snakemake --cores all`, or `make demo` on a bare machine.
# The config is checked before anything runs; results/<run>/ holds all files of a run.

from snakemake.utils import min_version

min_version("9.20")


include: "rules/config_files.smk"


# Snakemake would merge the user's config with this one, so that encoders which the user removed would remain.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "rules/settings.smk"
include: "rules/run_lifecycle.smk"
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
    # After the jobs are planned and before the first starts; not in a dry run, nor with --no-hooks.
    start_run()
    record_fingerprints()


onsuccess:
    # Otherwise the errors of failed jobs are printed last, below the messages of Snakemake.
    mark_succeeded()


rule all:
    # All files of the run, not only the final ones: a job that fails or is killed loses its old outputs, and Snakemake
    # would not miss these while the files computed from them exist.
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
