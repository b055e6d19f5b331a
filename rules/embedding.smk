# Features of all images, or of what is said of them, by every encoder: of the pool and the queries in parts, of the exemplars at once.


rule embed_pool_part:
    input:
        images=f"{RUN}/{run_layout.POOL_PART}",
    output:
        embeddings=f"{RUN}/{run_layout.POOL_EMBEDDINGS}",
    log:
        run_layout.log(RUN, "embed_pool_part"),
    benchmark:
        run_layout.benchmark(RUN, "embed_pool_part")
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
        images=f"{RUN}/{run_layout.SYNTHESIZED_PART}",
    output:
        embeddings=f"{RUN}/{run_layout.QUERY_EMBEDDINGS}",
    log:
        run_layout.log(RUN, "embed_queries_part"),
    benchmark:
        run_layout.benchmark(RUN, "embed_queries_part")
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
        images=f"{RUN}/{run_layout.EXEMPLARS}",
    output:
        embeddings=f"{RUN}/{run_layout.EXEMPLAR_EMBEDDINGS}",
    log:
        run_layout.log(RUN, "embed_exemplars"),
    benchmark:
        run_layout.benchmark(RUN, "embed_exemplars")
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
