# Images of the customized models, and of the base model as the control; their rows without images; a sample.

IMAGES = f"{RUN}/{run_layout.SYNTHESIZED_PART}"
KEEP_IMAGES = CONFIG["synthesis"]["keep"] == "all"


rule synthesize_part:
    input:
        models=f"{RUN}/{run_layout.MODELS_PART}",
        prompts=f"{RUN}/{run_layout.PROMPTS}",
        base_model=f"{RUN}/{run_layout.BASE_MODEL}",
    output:
        images=IMAGES if KEEP_IMAGES else temp(IMAGES),
        queries=f"{RUN}/{run_layout.QUERIES_PART}",
    log:
        run_layout.log(RUN, "synthesize_part"),
    benchmark:
        run_layout.benchmark(RUN, "synthesize_part")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(240),
        gpu=1,
    params:
        run=untracked(RUN),
        settings=with_effect("synthesis"),
        samples={name: CONFIG["prompts"][name] for name in ("samples_each", "control_samples_each")},
        batch=untracked(CONFIG["synthesis"]["batch"]),
        keep=untracked(CONFIG["synthesis"]["keep"]),
        seed=CONFIG["seed"],
        code=fingerprint("workflow_scripts/synthesize_part.py"),
        # The key of stored images depends on this code only: other changes run the job again, but synthesize none.
        image_code=fingerprint("attrib_core/diffusion/synthesis/generate.py"),
    script:
        "../workflow_scripts/synthesize_part.py"


# The images of each set that the report may show, sampled by seed, so that the report needs no others. If no others
# are kept, the images of the part are removed from the store here, after the part itself was written.
rule sample_part:
    input:
        images=f"{RUN}/{run_layout.SYNTHESIZED_PART}",
    output:
        sample=f"{RUN}/{run_layout.SAMPLE_PART}",
    log:
        run_layout.log(RUN, "sample_part"),
    benchmark:
        run_layout.benchmark(RUN, "sample_part")
    priority: 1
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1500),
        runtime=growing(60),
    params:
        run=untracked(RUN),
        keep=untracked(CONFIG["synthesis"]["keep"]),
        shown={"samples": CONFIG["report"]["samples"]},
        seed=CONFIG["seed"],
        code=fingerprint("workflow_scripts/sample_part.py"),
    script:
        "../workflow_scripts/sample_part.py"
