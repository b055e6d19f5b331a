# Features of all images, or of what is said of them, by every encoder: of the pool and the queries in parts, of the exemplars at once.


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
        run=untracked(RUN),
        ids="image_id",
        words="caption",
        pieces=untracked({"by": None}),
        encoder=embed_encoder,
        code=embed_code,
        # Of this alone, the encoder and the images depend the features: other changes run the job again, but encode nothing.
        feature_code=feature_code,
    script:
        "../workflow_scripts/embed.py"


# Before the next images are drawn, so that those that are dropped once they are embedded are few at a time.
rule embed_queries_part:
    input:
        images=f"{RUN}/synthesized/part-{{part}}.parquet",
    output:
        embeddings=f"{RUN}/embeddings/{{encoder}}/queries/part-{{part}}.parquet",
    log:
        f"{RUN}/logs/embed_queries_part/{{encoder}}-{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/embed_queries_part/{{encoder}}-{{part}}.tsv"
    priority: 1
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
        gpu=embed_gpu,
        decoding_threads=CONFIG["parts"]["decoding_threads"],
    params:
        run=untracked(RUN),
        ids="query_id",
        words="prompt",
        pieces=untracked({"by": "exemplar_set"}),
        encoder=embed_encoder,
        code=embed_code,
        feature_code=feature_code,
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
        run=untracked(RUN),
        ids="exemplar_id",
        words="caption",
        pieces=untracked({"by": "exemplar_set"}),
        encoder=embed_encoder,
        code=embed_code,
        feature_code=feature_code,
    script:
        "../workflow_scripts/embed.py"
