# Exact ranks in the pool of the exemplars of every query.

BLOCKS = ("query_block", "pool_block", "query_group")


rule rank:
    input:
        pool=expand(f"{RUN}/{run_layout.POOL_EMBEDDINGS}", part=POOL_PARTS, allow_missing=True),
        queries=expand(f"{RUN}/{run_layout.QUERY_EMBEDDINGS}", part=SET_PARTS, allow_missing=True),
        exemplar_embeddings=f"{RUN}/{run_layout.EXEMPLAR_EMBEDDINGS}",
        mapper=heads,
        query_rows=expand(f"{RUN}/{run_layout.QUERIES_PART}", part=SET_PARTS),
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
        excluded=f"{RUN}/{run_layout.EXCLUDED}",
    output:
        ranks=f"{RUN}/{run_layout.RANKS}",
        candidates=f"{RUN}/{run_layout.CANDIDATES}",
    log:
        run_layout.log(RUN, "rank"),
    benchmark:
        run_layout.benchmark(RUN, "rank")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        settings=with_effect("ranking"),
        blocks=untracked({name: CONFIG["ranking"][name] for name in BLOCKS}),
        code=fingerprint("workflow_scripts/rank.py"),
    script:
        "../workflow_scripts/rank.py"
