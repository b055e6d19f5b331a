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
    threads: 1
    resources:
        mem_mb=3000,
        gpu=1,
    params:
        run=RUN,
        settings=CONFIG["synthesis"],
        samples_each=CONFIG["prompts"]["samples_each"],
        control_samples_each=CONFIG["prompts"]["control_samples_each"],
        seed=CONFIG["seed"],
        code=code("workflow_scripts/synthesize_part.py", packages=["torch", "diffusers", "transformers"]),
        # Of this alone depend the pictures themselves: other changes run the job again, but draw nothing.
        picture_code=code("attrib_core/synthesis/drawing.py", packages=["torch", "diffusers", "transformers"]),
    script:
        "../workflow_scripts/synthesize_part.py"
