# The pool: the images of the source in parts, validated and hashed.


rule pool_part:
    output:
        pool=f"{RUN}/{run_layout.POOL_PART}",
        rejects=f"{RUN}/{run_layout.POOL_REJECTS}",
    log:
        run_layout.log(RUN, "pool_part"),
    benchmark:
        run_layout.benchmark(RUN, "pool_part")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1500),
        runtime=growing(60),
    params:
        source=CONFIG["pool"]["source"],
        rows=pool_rows,
        state=pool_source,
        seed=CONFIG["seed"],
        code=fingerprint(
            "workflow_scripts/pool_part.py", families=[f"sources/{CONFIG['pool']['source']['family']}"]
        ),
    script:
        "../workflow_scripts/pool_part.py"
