# One delta of the base model for each exemplar set, and before it images of the classes, which are to be kept.

CUSTOMIZER = CONFIG["customizer"]


rule prior:
    input:
        exemplars=f"{RUN}/exemplars.parquet",
        base_model=prior_reads("base_model", f"{RUN}/base_model.json"),
        pool=prior_reads("pool", expand(f"{RUN}/pool/part-{{part}}.parquet", part=POOL_PARTS)),
        excluded=prior_reads("excluded", f"{RUN}/excluded.parquet"),
    output:
        images=f"{RUN}/prior/images.parquet",
    log:
        f"{RUN}/logs/prior.log",
    benchmark:
        f"{RUN}/benchmarks/prior.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
        gpu=int("device" in families.parameters("priors", PRIOR_FAMILY)),
    params:
        run=untracked(RUN),
        settings=CONFIG["prior"] if PRIOR_WANTED else None,
        seed=CONFIG["seed"],
        state=prior_state,
        code=prior_code("workflow_scripts/prior.py"),
        # Of this alone depend the images themselves: other changes run the job again, but make none.
        image_code=prior_code(f"attrib_core/diffusion/priors/{PRIOR_FAMILY}.py"),
    script:
        "../workflow_scripts/prior.py"


# The deltas stand in an undeclared folder under keys of their content, so that a killed part resumes.
rule customize_part:
    input:
        exemplars=f"{RUN}/exemplars.parquet",
        prior=f"{RUN}/prior/images.parquet",
        base_model=f"{RUN}/base_model.json",
    output:
        models=f"{RUN}/models/part-{{part}}.parquet",
    log:
        f"{RUN}/logs/customize_part/{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/customize_part/{{part}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
        gpu=1,
    params:
        run=untracked(RUN),
        cut={"exemplar_sets": CONFIG["parts"]["exemplar_sets"]},
        settings=CUSTOMIZER,
        seed=CONFIG["seed"],
        code=code(
            "workflow_scripts/customize_part.py",
            f"customizers/{CUSTOMIZER['family']}",
        ),
        # Of this alone depend the models themselves: other changes run the job again, but train nothing.
        model_code=code(
            "attrib_core/diffusion/customization/train_stack.py",
            "diffusion/customization/training_data",
            f"customizers/{CUSTOMIZER['family']}",
        ),
    script:
        "../workflow_scripts/customize_part.py"
