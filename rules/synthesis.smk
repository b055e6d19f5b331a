# Images by the customized models, and by the base model as the control; their rows without them; a sample.

IMAGES = f"{RUN}/synthesized/part-{{part}}.parquet"
KEEP_IMAGES = CONFIG["synthesis"]["keep"] == "all"


rule synthesize_part:
    input:
        models=f"{RUN}/models/part-{{part}}.parquet",
        prompts=f"{RUN}/prompts.parquet",
        base_model=f"{RUN}/base_model.json",
    output:
        images=IMAGES if KEEP_IMAGES else temp(IMAGES),
        queries=f"{RUN}/synthesized/queries-{{part}}.parquet",
    log:
        f"{RUN}/logs/synthesize_part/{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/synthesize_part/{{part}}.tsv"
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
        code=code("workflow_scripts/synthesize_part.py"),
        # Of this alone depend the images themselves: other changes run the job again, but draw nothing.
        image_code=code("attrib_core/diffusion/synthesis/generate.py"),
    script:
        "../workflow_scripts/synthesize_part.py"


# What the report shows of each set, drawn by seed: so that it needs no more images than these. Where no more
# are kept, the part's pieces in the store go here, once it is certain that the part itself is there.
rule sample_part:
    input:
        images=f"{RUN}/synthesized/part-{{part}}.parquet",
    output:
        sample=f"{RUN}/synthesized/sample-{{part}}.parquet",
    log:
        f"{RUN}/logs/sample_part/{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/sample_part/{{part}}.tsv"
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
        code=code("workflow_scripts/sample_part.py"),
    script:
        "../workflow_scripts/sample_part.py"
