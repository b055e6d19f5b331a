# The training of the bundled base model from scratch. No target of the demo needs it:
#   snakemake --cores all base_model_recipe
# The working folder is not declared, so that a killed training resumes from its checkpoints.


rule base_model_recipe:
    input:
        config="config/base.yaml",
    output:
        index="results/base_model/pipeline/model_index.json",
    log:
        "results/base_model/logs/base_model_recipe.log",
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=growing(6000),
        runtime=growing(2880),
    params:
        work=untracked("results/base_model/work"),
        pipeline=untracked("results/base_model/pipeline"),
        code=fingerprint("attrib_core/diffusion/base_recipe/train.py"),
    shell:
        "python -m attrib_core.diffusion.base_recipe.train --config {input.config}"
        " --work {params.work} --out {params.pipeline} > {log} 2>&1"
