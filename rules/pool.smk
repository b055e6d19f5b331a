# The pool: pictures of the source in parts, checked and hashed.


def pool_rows(wildcards):
    """First source row of a part, and the one after its last."""
    first = int(wildcards.part) * CONFIG["parts"]["pool_images"]
    return [first, min(first + CONFIG["parts"]["pool_images"], CONFIG["pool"]["images"])]


def pool_source(wildcards):
    """Digest of what the source reads for a part, so that changed pictures of a folder are noticed."""
    from attrib_core import pool

    start, stop = pool_rows(wildcards)
    try:
        return pool.source_state(CONFIG["pool"]["source"], start=start, stop=stop, seed=CONFIG["seed"])
    except InputError as error:
        sys.exit(f"Error in the source of the pool: {error}")


rule pool_part:
    output:
        pool=f"{RUN}/pool/part-{{part}}.parquet",
        rejects=f"{RUN}/pool/rejects-{{part}}.parquet",
    log:
        f"{RUN}/logs/pool_part/{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/pool_part/{{part}}.tsv"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        source=CONFIG["pool"]["source"],
        rows=pool_rows,
        state=pool_source,
        seed=CONFIG["seed"],
        code=code("workflow_scripts/pool_part.py", f"sources/{CONFIG['pool']['source']['family']}"),
    script:
        "../workflow_scripts/pool_part.py"
