"""Say which rule makes a table of a run anew, for messages about a damaged one. No result depends on this module."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from attrib_core.storage import run_layout

WRITERS = {
    run_layout.POOL_PART: "pool_part",
    run_layout.POOL_REJECTS: "pool_part",
    run_layout.EXEMPLARS: "exemplars",
    run_layout.PROMPTS: "exemplars",
    run_layout.EXCLUDED: "exemplars",
    run_layout.PRIOR_IMAGES: "prior",
    run_layout.MODELS_PART: "customize_part",
    run_layout.SYNTHESIZED_PART: "synthesize_part",
    run_layout.QUERIES_PART: "synthesize_part",
    run_layout.SAMPLE_PART: "sample_part",
    run_layout.POOL_EMBEDDINGS: "embed_pool_part",
    run_layout.QUERY_EMBEDDINGS: "embed_queries_part",
    run_layout.EXEMPLAR_EMBEDDINGS: "embed_exemplars",
    run_layout.MAPPER_CURVE: "tune",
    run_layout.INDEX_IDS: "index",
    run_layout.RANKS: "rank",
    run_layout.CANDIDATES: "rank",
    run_layout.METRICS: "measure",
    run_layout.COMPARISONS: "measure",
    run_layout.STRATA: "measure",
    run_layout.MATCHED: "measure",
    run_layout.SOFT_SCORES: "calibrate",
    run_layout.CALIBRATION: "calibrate",
    run_layout.RELIABILITY: "calibrate",
}
"""The rule that writes each table, for messages about a damaged one."""


def rule_of(path: Path) -> str | None:
    """Return the rule that writes a table; None for a file that is in no folder of a run."""
    for template, rule in WRITERS.items():
        depth = template.count("/") + 1
        run, name = path.parents[depth - 1 : depth], "/".join(path.parts[-depth:])
        if (
            fnmatch.fnmatchcase(name, re.sub("{[^}]*}", "*", template))
            and run
            and (run[0] / run_layout.RECORDS).is_dir()
        ):
            return rule
    return None


def again(path: Path) -> str:
    """Return the end of a message about a damaged table: for one of a run, the rule that makes it anew."""
    rule = rule_of(path)
    return (
        "" if rule is None else f"; remove it and give the same snakemake command again: rule {rule} makes it"
    )
