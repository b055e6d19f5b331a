# Metrics with intervals from the ranks of all encoders and mappers.


rule measure:
    input:
        ranks=expand(f"{RUN}/ranks/{{encoder}}/{{mapper}}.parquet", encoder=ENCODERS, mapper=MAPPERS),
        exemplars=f"{RUN}/exemplars.parquet",
    output:
        metrics=f"{RUN}/metrics.parquet",
        comparisons=f"{RUN}/comparisons.parquet",
        strata=f"{RUN}/strata.parquet",
        matched=f"{RUN}/matched.parquet",
    log:
        f"{RUN}/logs/measure/all.log",
    benchmark:
        f"{RUN}/benchmarks/measure/all.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=CONFIG["metrics"],
        seed=CONFIG["seed"],
        code=code("workflow_scripts/measure.py"),
    script:
        "../workflow_scripts/measure.py"
