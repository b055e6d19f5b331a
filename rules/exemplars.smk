# The plan of the experiment: exemplar sets, their prompts, and what of the pool they exclude.

from attrib_core.data.prompts import list_path, list_names

PROMPT_LISTS = {kind: CONFIG["prompts"][kind] for kind in ("object", "style")}


rule exemplars:
    input:
        pool=expand(f"{RUN}/pool/part-{{part}}.parquet", part=POOL_PARTS),
        base_model=f"{RUN}/base_model.json",
    output:
        exemplars=f"{RUN}/exemplars.parquet",
        prompts=f"{RUN}/prompts.parquet",
        excluded=f"{RUN}/excluded.parquet",
    log:
        f"{RUN}/logs/exemplars.log",
    benchmark:
        f"{RUN}/benchmarks/exemplars.tsv"
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
        code=code(
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
