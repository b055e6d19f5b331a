"""The jobs of a run: their names, as the workflow's benchmark files have them, and the file that each leaves.

The rules stand in `rules/`; a test holds this list against the jobs that Snakemake plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attrib_core.common.constants import UNTUNED
from attrib_core.config.planning.counts import Counts

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
"""Stages in their order, and the rules whose jobs do their work. `embed` is a stage of its own for each encoder."""


@dataclass(frozen=True)
class Job:
    """A job: rule, name of its benchmark and log files below their folders, and an output below the run's folder.

    encoder: whose features it is about, where it is about one's.
    """

    rule: str
    name: str
    output: str
    encoder: str | None = None

    @property
    def stage(self) -> str:
        """The stage that it belongs to."""
        name = next(stage for stage, rules in STAGES.items() if self.rule in rules)
        return f"{name} {self.encoder}" if name == "embed" else name


def stages(counts: Counts) -> list[str]:
    """Names of a run's stages, in their order."""
    return list(dict.fromkeys(job.stage for job in planned(counts)))


def planned(counts: Counts) -> Iterator[Job]:
    """All jobs of a run, stage by stage."""
    pool = [f"{number:04d}" for number in range(counts.pool_parts)]
    sets = [f"{number:04d}" for number in range(counts.set_parts)]
    pairs = [(encoder, mapper) for encoder in counts.encoders for mapper in counts.mappers]
    for part in pool:
        yield Job("pool_part", f"pool_part/{part}", f"pool/part-{part}.parquet")
    yield Job("base_model", "base_model", "base_model.json")
    yield Job("exemplars", "exemplars", "exemplars.parquet")
    yield Job("prior", "prior", "prior/images.parquet")
    for part in sets:
        yield Job("customize_part", f"customize_part/{part}", f"models/part-{part}.parquet")
    for part in sets:
        yield Job("synthesize_part", f"synthesize_part/{part}", f"synthesized/queries-{part}.parquet")
    for part in sets:
        yield Job("sample_part", f"sample_part/{part}", f"synthesized/sample-{part}.parquet")
    for encoder in counts.encoders:
        folder = f"embeddings/{encoder}"
        for rule, kind, parts in (
            ("embed_pool_part", "pool", pool),
            ("embed_queries_part", "queries", sets),
        ):
            for part in parts:
                yield Job(rule, f"{rule}/{encoder}-{part}", f"{folder}/{kind}/part-{part}.parquet", encoder)
        yield Job("embed_exemplars", f"embed_exemplars/{encoder}", f"{folder}/exemplars.parquet", encoder)
    for encoder, mapper in pairs:
        if mapper != UNTUNED:
            yield Job("tune", f"tune/{encoder}-{mapper}", f"mappers/{encoder}/{mapper}.safetensors", encoder)
    for rule, path in (
        ("index", "indices/{}/{}.json"),
        ("rank", "ranks/{}/{}.parquet"),
        ("calibrate", "calibration/{}/{}/soft_scores.parquet"),
    ):
        for encoder, mapper in pairs:
            yield Job(rule, f"{rule}/{encoder}-{mapper}", path.format(encoder, mapper), encoder)
    yield Job("measure", "measure/all", "metrics.parquet")
    yield Job("report", "report/all", "report/index.html")
