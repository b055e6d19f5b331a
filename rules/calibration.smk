# Soft influence: fitted on the validation split, applied to the test split, of the kinds of sets that the
# mapper is for.


rule calibrate:
    input:
        ranks=f"{RUN}/ranks/{{encoder}}/{{mapper}}.parquet",
        candidates=f"{RUN}/candidates/{{encoder}}/{{mapper}}.parquet",
        exemplars=f"{RUN}/exemplars.parquet",
    output:
        calibrator=f"{RUN}/calibration/{{encoder}}/{{mapper}}/calibrator.json",
        soft_scores=f"{RUN}/calibration/{{encoder}}/{{mapper}}/soft_scores.parquet",
        calibration=f"{RUN}/calibration/{{encoder}}/{{mapper}}/calibration.parquet",
        reliability=f"{RUN}/calibration/{{encoder}}/{{mapper}}/reliability.parquet",
    log:
        f"{RUN}/logs/calibrate/{{encoder}}-{{mapper}}.log",
    benchmark:
        f"{RUN}/benchmarks/calibrate/{{encoder}}-{{mapper}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=CONFIG["calibration"],
        kinds=kinds_of,
        judging={"bootstrap": CONFIG["metrics"]["bootstrap"]},
        seed=CONFIG["seed"],
        code=code("workflow_scripts/calibrate.py"),
    script:
        "../workflow_scripts/calibrate.py"
