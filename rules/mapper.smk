# Mapper heads on the frozen encoders: trained on the train split, selected on the validation split, one for each
# entry of `mapper.trained_on`.

OF_HEAD = {"linear": ["rank"], "mlp": ["rank", "hidden"], "channel": []}
TUNING = (
    "head",
    "shared",
    "temperature",
    "learning_rate",
    "epochs",
    "patience",
    "batch_sets",
    "images_each",
    "distractors",
    *OF_HEAD[CONFIG["mapper"]["head"]],
)


rule tune:
    input:
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
        exemplar_embeddings=f"{RUN}/{run_layout.EXEMPLAR_EMBEDDINGS}",
        query_rows=expand(f"{RUN}/{run_layout.QUERIES_PART}", part=SET_PARTS),
        queries=expand(f"{RUN}/{run_layout.QUERY_EMBEDDINGS}", part=SET_PARTS, allow_missing=True),
        pool=expand(f"{RUN}/{run_layout.POOL_EMBEDDINGS}", part=POOL_PARTS, allow_missing=True),
        excluded=f"{RUN}/{run_layout.EXCLUDED}",
    output:
        mapper=f"{RUN}/{run_layout.MAPPER}",
        curve=f"{RUN}/{run_layout.MAPPER_CURVE}",
        choice=f"{RUN}/{run_layout.MAPPER_CHOICE}",
    log:
        run_layout.log(RUN, "tune"),
    benchmark:
        run_layout.benchmark(RUN, "tune")
    wildcard_constraints:
        mapper="|".join(map(re.escape, TRAINED_ON)),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2500),
        runtime=growing(120),
    params:
        kind=kind_of,
        settings={name: CONFIG["mapper"][name] for name in TUNING},
        choices={name: CONFIG["mapper"][name] for name in ("penalties", "starts", "shrinkages")},
        validation={"distractors": CONFIG["mapper"]["validation_distractors"]},
        seed=CONFIG["seed"],
        code=fingerprint("workflow_scripts/tune.py"),
    script:
        "../workflow_scripts/tune.py"
