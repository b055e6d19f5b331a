# Pictures by the customized models, and by the base model as the control.


rule synthesize_part:
    input:
        models=f"{RUN}/models/part-{{part}}.parquet",
        prompts=f"{RUN}/prompts.parquet",
        base_model=f"{RUN}/base_model.json",
    output:
        images=f"{RUN}/synthesized/part-{{part}}.parquet",
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
        seed=CONFIG["seed"],
        code=code("workflow_scripts/synthesize_part.py"),
        # Of this alone depend the pictures themselves: other changes run the job again, but draw nothing.
        picture_code=code("attrib_core/synthesis/drawing.py"),
    script:
        "../workflow_scripts/synthesize_part.py"
