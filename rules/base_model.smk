# The model that is customized, described: where it stands, its fingerprint, what it never saw.

from attrib_core import families


def base_model_files(wildcards):
    """The files of the base model, so that another model in the same place is noticed."""
    family, options = families.split(CONFIG["base_model"])
    try:
        return [str(path) for path in families.module("base_models", family).files(**options)]
    except InputError as error:
        sys.exit(f"Error in the base model: {error}")


rule base_model:
    input:
        files=base_model_files,
    output:
        description=f"{RUN}/base_model.json",
    log:
        f"{RUN}/logs/base_model.log",
    benchmark:
        f"{RUN}/benchmarks/base_model.tsv"
    threads: 1
    resources:
        mem_mb=500,
    params:
        settings=CONFIG["base_model"],
        code=code("workflow_scripts/base_model.py", f"base_models/{CONFIG['base_model']['family']}"),
    script:
        "../workflow_scripts/base_model.py"
