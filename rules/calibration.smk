# Soft influence: fitted on the validation split and applied to the test split, for the kinds of exemplar sets that
# the mapper is trained on.


rule calibrate:
    input:
        ranks=f"{RUN}/{run_layout.RANKS}",
        candidates=f"{RUN}/{run_layout.CANDIDATES}",
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
    output:
        calibrator=f"{RUN}/{run_layout.CALIBRATOR}",
        soft_scores=f"{RUN}/{run_layout.SOFT_SCORES}",
        calibration=f"{RUN}/{run_layout.CALIBRATION}",
        reliability=f"{RUN}/{run_layout.RELIABILITY}",
    log:
        run_layout.log(RUN, "calibrate"),
    benchmark:
        run_layout.benchmark(RUN, "calibrate")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=CONFIG["calibration"],
        kinds=kinds_of,
        seed=CONFIG["seed"],
        code=fingerprint("workflow_scripts/calibrate.py"),
    script:
        "../workflow_scripts/calibrate.py"
