# The report: one self-contained page, its plots, and its tables as CSV. Also shown by `snakemake --report`.

SHOWN = [name for name in CONFIG if name not in ("run", "seed", "parts")]


# Of these the page sums the times, as their benchmark files are named; others are of an earlier config.
JOBS = [
    *("base_model", "exemplars", "prior", "measure/all"),
    *expand("pool_part/{part}", part=POOL_PARTS),
    *expand("{rule}/{part}", rule=["customize_part", "synthesize_part", "sample_part"], part=SET_PARTS),
    *expand("embed_exemplars/{encoder}", encoder=ENCODERS),
    *expand("embed_pool_part/{encoder}-{part}", encoder=ENCODERS, part=POOL_PARTS),
    *expand("embed_queries_part/{encoder}-{part}", encoder=ENCODERS, part=SET_PARTS),
    *expand("tune/{encoder}-{mapper}", encoder=ENCODERS, mapper=TRAINED_ON),
    *expand(
        "{rule}/{encoder}-{mapper}", rule=["rank", "index", "calibrate"], encoder=ENCODERS, mapper=MAPPERS
    ),
]


rule report:
    input:
        pool=expand(f"{RUN}/pool/part-{{part}}.parquet", part=POOL_PARTS),
        rejects=expand(f"{RUN}/pool/rejects-{{part}}.parquet", part=POOL_PARTS),
        exemplars=f"{RUN}/exemplars.parquet",
        excluded=f"{RUN}/excluded.parquet",
        base_model=f"{RUN}/base_model.json",
        models=expand(f"{RUN}/models/part-{{part}}.parquet", part=SET_PARTS),
        queries=expand(f"{RUN}/synthesized/queries-{{part}}.parquet", part=SET_PARTS),
        sample=expand(f"{RUN}/synthesized/sample-{{part}}.parquet", part=SET_PARTS),
        curves=expand(
            f"{RUN}/mappers/{{encoder}}/{{mapper}}.curve.parquet", encoder=ENCODERS, mapper=TRAINED_ON
        ),
        choices=expand(
            f"{RUN}/mappers/{{encoder}}/{{mapper}}.choice.json", encoder=ENCODERS, mapper=TRAINED_ON
        ),
        indices=expand(f"{RUN}/indices/{{encoder}}/{{mapper}}.json", encoder=ENCODERS, mapper=MAPPERS),
        ranks=expand(f"{RUN}/ranks/{{encoder}}/{{mapper}}.parquet", encoder=ENCODERS, mapper=MAPPERS),
        candidates=expand(
            f"{RUN}/candidates/{{encoder}}/{{mapper}}.parquet", encoder=ENCODERS, mapper=MAPPERS
        ),
        metrics=f"{RUN}/metrics.parquet",
        comparisons=f"{RUN}/comparisons.parquet",
        strata=f"{RUN}/strata.parquet",
        matched=f"{RUN}/matched.parquet",
        calibration=expand(
            f"{RUN}/calibration/{{encoder}}/{{mapper}}/calibration.parquet", encoder=ENCODERS, mapper=MAPPERS
        ),
        reliability=expand(
            f"{RUN}/calibration/{{encoder}}/{{mapper}}/reliability.parquet", encoder=ENCODERS, mapper=MAPPERS
        ),
        soft_scores=expand(
            f"{RUN}/calibration/{{encoder}}/{{mapper}}/soft_scores.parquet", encoder=ENCODERS, mapper=MAPPERS
        ),
    output:
        page=report(
            f"{RUN}/report/index.html",
            caption="captions/page.rst",
            category="Report",
            labels={"page": "report"},
        ),
        plots=[plot(name) for name in ("recall", "recall_curve", "reliability", "similarities", "mapper")],
        tables=expand(
            f"{RUN}/report/{{table}}.csv",
            table=[
                "headline",
                "breakdown",
                "comparisons",
                "matched",
                "strata",
                "recall_curve",
                "calibration",
                "gallery",
                "stages",
            ],
        ),
    log:
        f"{RUN}/logs/report/all.log",
    benchmark:
        f"{RUN}/benchmarks/report/all.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings={name: CONFIG["report"][name] for name in ("gallery_sets", "retrievals")},
        run=CONFIG["run"],
        seed=CONFIG["seed"],
        encoders=ENCODERS,
        mappers=MAPPERS,
        ties=CONFIG["metrics"]["ties"],
        sections={name: with_effect(name) for name in SHOWN},
        benchmarks=f"{RUN}/benchmarks",
        jobs=JOBS,
        code=code("workflow_scripts/report.py"),
    script:
        "../workflow_scripts/report.py"
