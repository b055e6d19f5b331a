# The experimental design: exemplar sets, their prompts, and the pool rows that they exclude.

from attrib_core.data.prompts import list_path, list_names

PROMPT_LISTS = {kind: CONFIG["prompts"][kind] for kind in KINDS}


rule exemplars:
    input:
        pool=expand(f"{RUN}/{run_layout.POOL_PART}", part=POOL_PARTS),
        base_model=f"{RUN}/{run_layout.BASE_MODEL}",
    output:
        exemplars=f"{RUN}/{run_layout.EXEMPLARS}",
        prompts=f"{RUN}/{run_layout.PROMPTS}",
        excluded=f"{RUN}/{run_layout.EXCLUDED}",
    log:
        run_layout.log(RUN, "exemplars"),
    benchmark:
        run_layout.benchmark(RUN, "exemplars")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=CONFIG["exemplars"],
        source=CONFIG["pool"]["source"]["family"],
        prompts={"lists": PROMPT_LISTS, "prompts_each": CONFIG["prompts"]["prompts_each"]},
        seed=CONFIG["seed"],
        code=fingerprint(
            "workflow_scripts/exemplars.py",
            data=[
                list_path(name)
                for lists in PROMPT_LISTS.values()
                for entry in lists.values()
                for name in list_names(entry)
            ],
        ),
    script:
        "../workflow_scripts/exemplars.py"
