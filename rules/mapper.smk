# Heads on the frozen encoders: trained on the train split, chosen on the validation split, for the
# kinds of sets that `mapper.trained_on` names.

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
        exemplars=f"{RUN}/exemplars.parquet",
        exemplar_embeddings=f"{RUN}/embeddings/{{encoder}}/exemplars.parquet",
        query_rows=expand(f"{RUN}/synthesized/queries-{{part}}.parquet", part=SET_PARTS),
        queries=expand(f"{RUN}/embeddings/{{{{encoder}}}}/queries/part-{{part}}.parquet", part=SET_PARTS),
        pool=expand(f"{RUN}/embeddings/{{{{encoder}}}}/pool/part-{{part}}.parquet", part=POOL_PARTS),
        excluded=f"{RUN}/excluded.parquet",
    output:
        mapper=f"{RUN}/mappers/{{encoder}}/{{mapper}}.safetensors",
        curve=f"{RUN}/mappers/{{encoder}}/{{mapper}}.curve.parquet",
        choice=f"{RUN}/mappers/{{encoder}}/{{mapper}}.choice.json",
    log:
        f"{RUN}/logs/tune/{{encoder}}-{{mapper}}.log",
    benchmark:
        f"{RUN}/benchmarks/tune/{{encoder}}-{{mapper}}.tsv"
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
        code=code("workflow_scripts/tune.py"),
    script:
        "../workflow_scripts/tune.py"
