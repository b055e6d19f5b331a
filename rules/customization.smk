# One delta of the base model for each exemplar set, and before that the images for prior preservation.

CUSTOMIZER = CONFIG["customizer"]


rule prior:
    input:
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
        base_model=prior_reads("base_model", f"{RUN}/{run_layout.BASE_MODEL}"),
        pool=prior_reads("pool", expand(f"{RUN}/{run_layout.POOL_PART}", part=POOL_PARTS)),
        excluded=prior_reads("excluded", f"{RUN}/{run_layout.EXCLUDED}"),
    output:
        images=f"{RUN}/{run_layout.PRIOR_IMAGES}",
    log:
        run_layout.log(RUN, "prior"),
    benchmark:
        run_layout.benchmark(RUN, "prior")
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
        # The key of stored images depends on this code only: other changes run the job again, but generate none.
        image_code=prior_code(f"attrib_core/diffusion/priors/{PRIOR_FAMILY}.py"),
    script:
        "../workflow_scripts/prior.py"


# The deltas are in the store, under keys of their content and not declared here, so that a killed part resumes.
rule customize_part:
    input:
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
        prior=f"{RUN}/{run_layout.PRIOR_IMAGES}",
        base_model=f"{RUN}/{run_layout.BASE_MODEL}",
    output:
        models=f"{RUN}/{run_layout.MODELS_PART}",
    log:
        run_layout.log(RUN, "customize_part"),
    benchmark:
        run_layout.benchmark(RUN, "customize_part")
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
        code=fingerprint(
            "workflow_scripts/customize_part.py",
            families=[f"customizers/{CUSTOMIZER['family']}"],
        ),
        # The key of stored models depends on this code only: other changes run the job again, but train nothing.
        model_code=fingerprint(
            "attrib_core/diffusion/customization/train_stack.py",
            families=[f"customizers/{CUSTOMIZER['family']}"],
            modules=["attrib_core.diffusion.customization.training_data"],
        ),
    script:
        "../workflow_scripts/customize_part.py"
