# A FAISS index of the pool, with its recall against exact search. Metrics do not use it.

from attrib_core.features.index import factory_string


rule index:
    input:
        pool=expand(f"{RUN}/{run_layout.POOL_EMBEDDINGS}", part=POOL_PARTS, allow_missing=True),
        queries=expand(f"{RUN}/{run_layout.QUERY_EMBEDDINGS}", part=SET_PARTS, allow_missing=True),
        excluded=f"{RUN}/{run_layout.EXCLUDED}",
        mapper=heads,
    output:
        faiss=f"{RUN}/{run_layout.INDEX}",
        ids=f"{RUN}/{run_layout.INDEX_IDS}",
        report=f"{RUN}/{run_layout.INDEX_REPORT}",
    log:
        run_layout.log(RUN, "index"),
    benchmark:
        run_layout.benchmark(RUN, "index")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(240),
        # Inverted lists are trained on a GPU if FAISS supports it.
        gpu=int(
            "IVF"
            in factory_string.resolve(CONFIG["index"]["factory"], None, CONFIG["pool"]["images"]).factory
        ),
    params:
        settings={name: CONFIG["index"][name] for name in ("factory", "probes", "train_rows")},
        check={"count": CONFIG["index"]["queries"], "k": CONFIG["index"]["k"]},
        seed=CONFIG["seed"],
        code=fingerprint("workflow_scripts/index.py"),
    script:
        "../workflow_scripts/index.py"
