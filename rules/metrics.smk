# Metrics with confidence intervals, from the ranks of all encoders and mappers.


rule measure:
    input:
        ranks=expand(f"{RUN}/{run_layout.RANKS}", encoder=ENCODERS, mapper=MAPPERS),
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
    output:
        metrics=f"{RUN}/{run_layout.METRICS}",
        comparisons=f"{RUN}/{run_layout.COMPARISONS}",
        strata=f"{RUN}/{run_layout.STRATA}",
        matched=f"{RUN}/{run_layout.MATCHED}",
    log:
        run_layout.log(RUN, "measure"),
    benchmark:
        run_layout.benchmark(RUN, "measure")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=CONFIG["metrics"],
        seed=CONFIG["seed"],
        code=fingerprint("workflow_scripts/measure.py"),
    script:
        "../workflow_scripts/measure.py"
