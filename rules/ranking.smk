# Exact ranks of every query's own exemplars in the pool.

BLOCKS = ("query_block", "pool_block", "query_group")


rule rank:
    input:
        pool=expand(f"{RUN}/embeddings/{{{{encoder}}}}/pool/part-{{part}}.parquet", part=POOL_PARTS),
        queries=expand(f"{RUN}/embeddings/{{{{encoder}}}}/queries/part-{{part}}.parquet", part=SET_PARTS),
        exemplar_embeddings=f"{RUN}/embeddings/{{encoder}}/exemplars.parquet",
        mapper=heads,
        query_rows=expand(f"{RUN}/synthesized/queries-{{part}}.parquet", part=SET_PARTS),
        exemplars=f"{RUN}/exemplars.parquet",
        excluded=f"{RUN}/excluded.parquet",
    output:
        ranks=f"{RUN}/ranks/{{encoder}}/{{mapper}}.parquet",
        candidates=f"{RUN}/candidates/{{encoder}}/{{mapper}}.parquet",
    log:
        f"{RUN}/logs/rank/{{encoder}}-{{mapper}}.log",
    benchmark:
        f"{RUN}/benchmarks/rank/{{encoder}}-{{mapper}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        settings=with_effect("ranking"),
        blocks=untracked({name: CONFIG["ranking"][name] for name in BLOCKS}),
        code=code("workflow_scripts/rank.py"),
    script:
        "../workflow_scripts/rank.py"
