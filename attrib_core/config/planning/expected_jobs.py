"""The jobs of a run: their names, as of the workflow's log and benchmark files, and an output of each.

The rules are in `rules/`; a test compares this list with the jobs that Snakemake plans.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attrib_core.common.constants import UNTUNED
from attrib_core.config.planning.counts import Counts
from attrib_core.storage import run_layout

STAGES = {
    "pool": ("pool_part",),
    "base model": ("base_model",),
    "exemplars": ("exemplars",),
    "prior": ("prior",),
    "customize": ("customize_part",),
    "synthesize": ("synthesize_part",),
    "sample": ("sample_part",),
    "embed": ("embed_pool_part", "embed_queries_part", "embed_exemplars"),
    "tune": ("tune",),
    "index": ("index",),
    "rank": ("rank",),
    "measure": ("measure",),
    "calibrate": ("calibrate",),
    "report": ("report",),
}
"""Stages in their order, with their rules. `embed` is a separate stage for each encoder."""

OUTPUTS = {
    "pool_part": run_layout.POOL_PART,
    "base_model": run_layout.BASE_MODEL,
    "exemplars": run_layout.EXEMPLARS,
    "prior": run_layout.PRIOR_IMAGES,
    "customize_part": run_layout.MODELS_PART,
    "synthesize_part": run_layout.QUERIES_PART,
    "sample_part": run_layout.SAMPLE_PART,
    "embed_pool_part": run_layout.POOL_EMBEDDINGS,
    "embed_queries_part": run_layout.QUERY_EMBEDDINGS,
    "embed_exemplars": run_layout.EXEMPLAR_EMBEDDINGS,
    "tune": run_layout.MAPPER,
    "index": run_layout.INDEX_REPORT,
    "rank": run_layout.RANKS,
    "calibrate": run_layout.SOFT_SCORES,
    "measure": run_layout.METRICS,
    "report": run_layout.REPORT_PAGE,
}
"""An output of each rule's jobs: a job whose output exists is done."""


@dataclass(frozen=True)
class Job:
    """A job: its rule, the name of its benchmark and log files, and an output below the run's folder.

    encoder: the encoder whose features the job computes or uses; None for other jobs.
    """

    rule: str
    name: str
    output: str
    encoder: str | None = None

    @property
    def stage(self) -> str:
        """The stage of the job."""
        name = next(stage for stage, rules in STAGES.items() if self.rule in rules)
        return f"{name} {self.encoder}" if name == "embed" else name


def stages(counts: Counts) -> list[str]:
    """Return the names of a run's stages, in their order."""
    return list(dict.fromkeys(job.stage for job in jobs(counts)))


def jobs(counts: Counts) -> Iterator[Job]:
    """Yield all jobs of a run, stage by stage."""
    pool = [f"{number:04d}" for number in range(counts.pool_parts)]
    sets = [f"{number:04d}" for number in range(counts.set_parts)]
    trained = [mapper for mapper in counts.mappers if mapper != UNTUNED]
    yield from _jobs("pool_part", part=pool)
    for rule in ("base_model", "exemplars", "prior"):
        yield from _jobs(rule)
    for rule in ("customize_part", "synthesize_part", "sample_part"):
        yield from _jobs(rule, part=sets)
    for encoder in counts.encoders:
        yield from _jobs("embed_pool_part", encoder=[encoder], part=pool)
        yield from _jobs("embed_queries_part", encoder=[encoder], part=sets)
        yield from _jobs("embed_exemplars", encoder=[encoder])
    yield from _jobs("tune", encoder=counts.encoders, mapper=trained)
    for rule in ("index", "rank", "calibrate"):
        yield from _jobs(rule, encoder=counts.encoders, mapper=counts.mappers)
    for rule in ("measure", "report"):
        yield from _jobs(rule)


def _jobs(rule: str, **wildcards: Sequence[str]) -> Iterator[Job]:
    """Yield the jobs of a rule, one for each combination of values of its wildcards."""
    for values in itertools.product(*wildcards.values()):
        named = dict(zip(wildcards, values, strict=True))
        name, output = run_layout.JOB_NAMES[rule].format(**named), OUTPUTS[rule].format(**named)
        yield Job(rule, name, output, named.get("encoder"))
