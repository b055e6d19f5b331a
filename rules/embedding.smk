# Features of all pictures by every encoder: of the pool and the queries in parts, of the exemplars at once.


rule embed_pool_part:
    input:
        images=f"{RUN}/pool/part-{{part}}.parquet",
    output:
        embeddings=f"{RUN}/embeddings/{{encoder}}/pool/part-{{part}}.parquet",
    log:
        f"{RUN}/logs/embed_pool_part/{{encoder}}-{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/embed_pool_part/{{encoder}}-{{part}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
        gpu=embed_gpu,
        decoding_threads=CONFIG["parts"]["decoding_threads"],
    params:
        ids="image_id",
        encoder=embed_encoder,
        code=embed_code,
    script:
        "../workflow_scripts/embed.py"


rule embed_queries_part:
    input:
        images=f"{RUN}/synthesized/part-{{part}}.parquet",
    output:
        embeddings=f"{RUN}/embeddings/{{encoder}}/queries/part-{{part}}.parquet",
    log:
        f"{RUN}/logs/embed_queries_part/{{encoder}}-{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/embed_queries_part/{{encoder}}-{{part}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
        gpu=embed_gpu,
        decoding_threads=CONFIG["parts"]["decoding_threads"],
    params:
        ids="query_id",
        encoder=embed_encoder,
        code=embed_code,
    script:
        "../workflow_scripts/embed.py"


rule embed_exemplars:
    input:
        images=f"{RUN}/exemplars.parquet",
    output:
        embeddings=f"{RUN}/embeddings/{{encoder}}/exemplars.parquet",
    log:
        f"{RUN}/logs/embed_exemplars/{{encoder}}.log",
    benchmark:
        f"{RUN}/benchmarks/embed_exemplars/{{encoder}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
        gpu=embed_gpu,
        decoding_threads=CONFIG["parts"]["decoding_threads"],
    params:
        ids="exemplar_id",
        encoder=embed_encoder,
        code=embed_code,
    script:
        "../workflow_scripts/embed.py"
