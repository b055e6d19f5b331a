# Description of the base model: its path, its fingerprint, and what was held out of its training.


rule base_model:
    output:
        description=f"{RUN}/{run_layout.BASE_MODEL}",
    log:
        run_layout.log(RUN, "base_model"),
    benchmark:
        run_layout.benchmark(RUN, "base_model")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=CONFIG["base_model"],
        state=base_model_state(),
        code=fingerprint(
            "workflow_scripts/base_model.py", families=[f"base_models/{CONFIG['base_model']['family']}"]
        ),
    script:
        "../workflow_scripts/base_model.py"
