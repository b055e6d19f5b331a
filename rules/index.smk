# An index of the pool for retrieval, with its recall against exact search. Metrics never use it.

from attrib_core.features.index import factory_string


rule index:
    input:
        pool=expand(f"{RUN}/embeddings/{{{{encoder}}}}/pool/part-{{part}}.parquet", part=POOL_PARTS),
        queries=expand(f"{RUN}/embeddings/{{{{encoder}}}}/queries/part-{{part}}.parquet", part=SET_PARTS),
        excluded=f"{RUN}/excluded.parquet",
        mapper=heads,
    output:
        faiss=f"{RUN}/indices/{{encoder}}/{{mapper}}.faiss",
        ids=f"{RUN}/indices/{{encoder}}/{{mapper}}.ids.parquet",
        report=f"{RUN}/indices/{{encoder}}/{{mapper}}.json",
    log:
        f"{RUN}/logs/index/{{encoder}}-{{mapper}}.log",
    benchmark:
        f"{RUN}/benchmarks/index/{{encoder}}-{{mapper}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(240),
        # Lists are trained on a GPU where FAISS has one.
        gpu=int(
            "IVF" in factory_string.resolve(CONFIG["index"]["factory"], None, CONFIG["pool"]["images"]).factory
        ),
    params:
        settings={name: CONFIG["index"][name] for name in ("factory", "probes", "train_rows")},
        check={"count": CONFIG["index"]["queries"], "k": CONFIG["index"]["k"]},
        seed=CONFIG["seed"],
        code=code("workflow_scripts/index.py"),
    script:
        "../workflow_scripts/index.py"
