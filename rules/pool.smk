# The pool: images of the source in parts, checked and hashed.


rule pool_part:
    output:
        pool=f"{RUN}/pool/part-{{part}}.parquet",
        rejects=f"{RUN}/pool/rejects-{{part}}.parquet",
    log:
        f"{RUN}/logs/pool_part/{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/pool_part/{{part}}.tsv"
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
        code=code("workflow_scripts/pool_part.py", f"sources/{CONFIG['pool']['source']['family']}"),
    script:
        "../workflow_scripts/pool_part.py"
