# Embeddings of all images (or their captions and prompts) by every encoder: pool and queries in parts, exemplars at once.


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
        id_column="image_id",
        text_column="caption",
        pieces=untracked({"by": None}),
        encoder=embed_encoder,
        code=embed_code,
        # The key of stored embeddings depends on this code, the encoder and the images only: other changes encode nothing.
        feature_code=feature_code,
    script:
        "../workflow_scripts/embed.py"


# Runs before the next images are synthesized, so that few of the images that are dropped after embedding exist at once.
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
        id_column="query_id",
        text_column="prompt",
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
        id_column="exemplar_id",
        text_column="caption",
        pieces=untracked({"by": "exemplar_set"}),
        encoder=embed_encoder,
        code=embed_code,
        feature_code=feature_code,
    script:
        "../workflow_scripts/embed.py"
