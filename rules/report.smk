# The report: one self-contained page, its plots, and its tables as CSV. Also shown by `snakemake --report`.

SHOWN = [name for name in CONFIG if name not in ("run", "seed", "parts")]


# The jobs whose benchmark files the page sums; other files there are of an earlier config.
JOBS = [
    *jobs_of("base_model", "exemplars", "prior", "measure"),
    *jobs_of("pool_part", part=POOL_PARTS),
    *jobs_of("customize_part", "synthesize_part", "sample_part", part=SET_PARTS),
    *jobs_of("embed_exemplars", encoder=ENCODERS),
    *jobs_of("embed_pool_part", encoder=ENCODERS, part=POOL_PARTS),
    *jobs_of("embed_queries_part", encoder=ENCODERS, part=SET_PARTS),
    *jobs_of("tune", encoder=ENCODERS, mapper=TRAINED_ON),
    *jobs_of("rank", "index", "calibrate", encoder=ENCODERS, mapper=MAPPERS),
]


rule report:
    input:
        pool=expand(f"{RUN}/{run_layout.POOL_PART}", part=POOL_PARTS),
        rejects=expand(f"{RUN}/{run_layout.POOL_REJECTS}", part=POOL_PARTS),
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
        excluded=f"{RUN}/{run_layout.EXCLUDED}",
        base_model=f"{RUN}/{run_layout.BASE_MODEL}",
        models=expand(f"{RUN}/{run_layout.MODELS_PART}", part=SET_PARTS),
        queries=expand(f"{RUN}/{run_layout.QUERIES_PART}", part=SET_PARTS),
        sample=expand(f"{RUN}/{run_layout.SAMPLE_PART}", part=SET_PARTS),
        curves=expand(f"{RUN}/{run_layout.MAPPER_CURVE}", encoder=ENCODERS, mapper=TRAINED_ON),
        choices=expand(f"{RUN}/{run_layout.MAPPER_CHOICE}", encoder=ENCODERS, mapper=TRAINED_ON),
        indices=expand(f"{RUN}/{run_layout.INDEX_REPORT}", encoder=ENCODERS, mapper=MAPPERS),
        ranks=expand(f"{RUN}/{run_layout.RANKS}", encoder=ENCODERS, mapper=MAPPERS),
        candidates=expand(f"{RUN}/{run_layout.CANDIDATES}", encoder=ENCODERS, mapper=MAPPERS),
        metrics=f"{RUN}/{run_layout.METRICS}",
        comparisons=f"{RUN}/{run_layout.COMPARISONS}",
        strata=f"{RUN}/{run_layout.STRATA}",
        matched=f"{RUN}/{run_layout.MATCHED}",
        calibration=expand(f"{RUN}/{run_layout.CALIBRATION}", encoder=ENCODERS, mapper=MAPPERS),
        reliability=expand(f"{RUN}/{run_layout.RELIABILITY}", encoder=ENCODERS, mapper=MAPPERS),
        soft_scores=expand(f"{RUN}/{run_layout.SOFT_SCORES}", encoder=ENCODERS, mapper=MAPPERS),
    output:
        page=report(
            f"{RUN}/{run_layout.REPORT_PAGE}",
            caption="captions/page.rst",
            category="Report",
            labels={"page": "report"},
        ),
        plots=[plot(name) for name in ("recall", "recall_curve", "reliability", "similarities", "mapper")],
        tables=expand(
            f"{RUN}/{run_layout.REPORT_TABLE}",
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
        run_layout.log(RUN, "report"),
    benchmark:
        run_layout.benchmark(RUN, "report")
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
        benchmarks=f"{RUN}/{run_layout.BENCHMARKS}",
        jobs=JOBS,
        code=fingerprint("workflow_scripts/report.py"),
    script:
        "../workflow_scripts/report.py"
