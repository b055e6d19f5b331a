# One delta of the base model for each exemplar set, and before it the base model's own pictures of the classes.

from attrib_core import prompts

CUSTOMIZER = CONFIG["customizer"]


rule prior:
    input:
        exemplars=f"{RUN}/exemplars.parquet",
        base_model=f"{RUN}/base_model.json",
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
        mem_mb=3000,
        gpu=1,
    params:
        asked={
            "lists": {kind: CUSTOMIZER[f"{kind}_prior"] for kind in ("object", "style")},
            "images_each": CUSTOMIZER["prior_images"] if CUSTOMIZER["prior_batch"] else 0,
        },
        sampling={name: CUSTOMIZER[f"prior_{name}"] for name in ("steps", "guidance", "eta")},
        seed=CONFIG["seed"],
        code=code(
            "workflow_scripts/prior.py",
            data=[prompts.list_path(CUSTOMIZER[f"{kind}_prior"]) for kind in ("object", "style")],
        ),
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
        mem_mb=4000,
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
            "attrib_core/customization/stacks.py",
            "customization/concepts",
            f"customizers/{CUSTOMIZER['family']}",
        ),
    script:
        "../workflow_scripts/customize_part.py"
