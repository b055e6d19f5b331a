# One delta of the base model for each exemplar set, and before it pictures of the classes, which are to be kept.

from attrib_core import families

CUSTOMIZER = CONFIG["customizer"]
PRIOR_FAMILY, PRIOR_OPTIONS = families.split(CONFIG["prior"])
PRIOR_MODULE = families.module("priors", PRIOR_FAMILY)
PRIOR_WANTED = CUSTOMIZER["prior_batch"] > 0


def prior_reads(name, files):
    """What the family of prior pictures takes them from, as input; nothing where it does not."""
    return files if PRIOR_WANTED and name in PRIOR_MODULE.READS else []


def prior_state(wildcards):
    """Digest of what the family reads beside its inputs, so that changed pictures of a folder are noticed."""
    if not PRIOR_WANTED or not hasattr(PRIOR_MODULE, "state"):
        return ""
    try:
        return PRIOR_MODULE.state(**PRIOR_OPTIONS)
    except InputError as error:
        sys.exit(f"Error in the config: {error.under('prior')}")


def prior_code(script):
    """Fingerprint of what a script and the family of prior pictures reach."""
    return code(
        script,
        f"priors/{PRIOR_FAMILY}",
        *getattr(PRIOR_MODULE, "FAMILIES", ()),
        data=PRIOR_MODULE.files(**PRIOR_OPTIONS) if hasattr(PRIOR_MODULE, "files") else (),
        packages=getattr(PRIOR_MODULE, "PACKAGES", ()),
    )


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
    threads: 1
    resources:
        mem_mb=3000,
        gpu=int("device" in families.parameters("priors", PRIOR_FAMILY)),
    params:
        run=RUN,
        settings=CONFIG["prior"] if PRIOR_WANTED else None,
        seed=CONFIG["seed"],
        state=prior_state,
        code=prior_code("workflow_scripts/prior.py"),
        # Of this alone depend the pictures themselves: other changes run the job again, but make none.
        picture_code=prior_code(f"attrib_core/priors/{PRIOR_FAMILY}.py"),
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
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        run=RUN,
        size=CONFIG["parts"]["exemplar_sets"],
        settings=CUSTOMIZER,
        seed=CONFIG["seed"],
        code=code(
            "workflow_scripts/customize_part.py",
            f"customizers/{CUSTOMIZER['family']}",
            packages=["torch", "diffusers", "transformers"],
        ),
        # Of this alone depend the models themselves: other changes run the job again, but train nothing.
        model_code=code(
            "attrib_core/customization/stacks.py",
            "customization/concepts",
            f"customizers/{CUSTOMIZER['family']}",
            packages=["torch", "diffusers", "transformers"],
        ),
    script:
        "../workflow_scripts/customize_part.py"
