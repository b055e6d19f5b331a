"""The paths of a run: templates relative to its folder, `results/<run>/`, with the wildcards of the workflow's rules.

Rules write f"{RUN}/{run_layout.POOL_PART}", Python code `run_layout.path(run, run_layout.POOL_PART, part="0000")`.
Wildcards: `part` numbers the parts of the pool or of the exemplar sets ("0000", "0001", ...); `encoder` and `mapper`
are names of the config.
"""

from __future__ import annotations

from pathlib import Path

BASE_MODEL = "base_model.json"

POOL_PART = "pool/part-{part}.parquet"
POOL_REJECTS = "pool/rejects-{part}.parquet"

EXEMPLARS = "exemplars.parquet"
PROMPTS = "prompts.parquet"
EXCLUDED = "excluded.parquet"

PRIOR_IMAGES = "prior/images.parquet"
MODELS_PART = "models/part-{part}.parquet"

SYNTHESIZED_PART = "synthesized/part-{part}.parquet"
QUERIES_PART = "synthesized/queries-{part}.parquet"
SAMPLE_PART = "synthesized/sample-{part}.parquet"

EMBEDDINGS = "embeddings"
POOL_EMBEDDINGS = "embeddings/{encoder}/pool/part-{part}.parquet"
QUERY_EMBEDDINGS = "embeddings/{encoder}/queries/part-{part}.parquet"
EXEMPLAR_EMBEDDINGS = "embeddings/{encoder}/exemplars.parquet"

MAPPER = "mappers/{encoder}/{mapper}.safetensors"
MAPPER_CURVE = "mappers/{encoder}/{mapper}.curve.parquet"
MAPPER_CHOICE = "mappers/{encoder}/{mapper}.choice.json"

INDEX = "indices/{encoder}/{mapper}.faiss"
INDEX_IDS = "indices/{encoder}/{mapper}.ids.parquet"
INDEX_REPORT = "indices/{encoder}/{mapper}.json"

RANKS = "ranks/{encoder}/{mapper}.parquet"
CANDIDATES = "candidates/{encoder}/{mapper}.parquet"

METRICS = "metrics.parquet"
COMPARISONS = "comparisons.parquet"
STRATA = "strata.parquet"
MATCHED = "matched.parquet"

CALIBRATOR = "calibration/{encoder}/{mapper}/calibrator.json"
SOFT_SCORES = "calibration/{encoder}/{mapper}/soft_scores.parquet"
CALIBRATION = "calibration/{encoder}/{mapper}/calibration.parquet"
RELIABILITY = "calibration/{encoder}/{mapper}/reliability.parquet"

REPORT_PAGE = "report/index.html"
REPORT_PLOT = "report/{plot}.svg"
REPORT_TABLE = "report/{table}.csv"

LOGS = "logs"
LOG = "logs/{job}.log"
BENCHMARKS = "benchmarks"
BENCHMARK = "benchmarks/{job}.tsv"
"""How long a job took, as Snakemake measures it."""
RECORDS = "records"
"""What each job was given and made; see `job_records`."""
REFERENCES = "refers"
"""The keys of the store that each job's output depends on; see `store.references`."""

JOB_NAMES = {
    "base_model": "base_model",
    "pool_part": "pool_part/{part}",
    "exemplars": "exemplars",
    "prior": "prior",
    "customize_part": "customize_part/{part}",
    "synthesize_part": "synthesize_part/{part}",
    "sample_part": "sample_part/{part}",
    "embed_pool_part": "embed_pool_part/{encoder}-{part}",
    "embed_queries_part": "embed_queries_part/{encoder}-{part}",
    "embed_exemplars": "embed_exemplars/{encoder}",
    "tune": "tune/{encoder}-{mapper}",
    "index": "index/{encoder}-{mapper}",
    "rank": "rank/{encoder}-{mapper}",
    "calibrate": "calibrate/{encoder}-{mapper}",
    "measure": "measure/all",
    "report": "report/all",
}
"""The name of each rule's jobs, by which logs, benchmark files and notes of keys are named."""


def log(run: str, rule: str) -> str:
    """Return the template of the logs of a rule's jobs, in the folder of the run."""
    return f"{run}/{LOG.replace('{job}', JOB_NAMES[rule])}"


def benchmark(run: str, rule: str) -> str:
    """Return the template of the benchmark files of a rule's jobs, in the folder of the run."""
    return f"{run}/{BENCHMARK.replace('{job}', JOB_NAMES[rule])}"


def path(run: Path, template: str, **wildcards: str) -> Path:
    """Return the path of a file of a run, with values for the wildcards of its template."""
    return run / template.format(**wildcards)


def folder(run: Path, template: str, **wildcards: str) -> Path:
    """Return the folder of a file or of the parts of a table; `wildcards` are those of the folder."""
    return run / Path(template).parent.as_posix().format(**wildcards)


def find_parts(run: Path, template: str, **wildcards: str) -> dict[str, Path]:
    """Return the parts of a table that exist, by their numbers in rising order; `wildcards` are all but `part`."""
    before, after = template.format(part="*", **wildcards).split("*")
    found = sorted(run.glob(f"{before}*{after}"))
    return {file.relative_to(run).as_posix().removeprefix(before).removesuffix(after): file for file in found}


def documented(template: str) -> str:
    """Return a template as documentation writes it: "embeddings/<encoder>/pool/part-*.parquet"."""
    return template.replace("{part}", "*").replace("{", "<").replace("}", ">")
