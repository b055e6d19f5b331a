"""The schema of the config: meaning, type, default and bounds of each key.

The defaults are the demo, so an empty config runs it; `config.yaml` has the same values, and
`docs/config.md` is generated from here.
"""

from __future__ import annotations

from attrib_core.config.fields import LONGEST_NAME, NAME, Family, Name, Section, family, key
from attrib_core.config.schema_evaluation import Calibration, Index, Mapper, Metrics, Ranking, Report
from attrib_core.config.schema_generation import Exemplars, Parts, Pool, Prompts, Synthesis

EFFICIENTNET = {"family": "timm", "architecture": "tf_efficientnet_lite0", "weights": "efficientnet-lite0"}


WITHOUT_EFFECT = {
    "run": "names the folder of the run, so that another name is another run",
    "parts.pool_images": "cuts the pool into jobs: the parts are other files, with the same rows in all",
    "parts.exemplar_sets": "cuts the exemplar sets into jobs: the parts are other files, with the same rows in all",
    "parts.decoding_threads": "how many threads decode images ahead of an encoder",
    "synthesis.batch": "how many images are computed at once",
    "synthesis.keep": "whether images are kept after everything that reads them is done",
    "ranking.query_block": "rows of one matrix product of exact sums",
    "ranking.pool_block": "columns of one matrix product of exact sums",
    "ranking.query_group": "queries for which the pool is read once",
}
"""Keys that do not change the results of a run, each with the reason."""


class Config(Section):
    """A run, from pool to report."""

    run: str = key(
        "demo", "name of the run; all its files are in `results/<run>`", pattern=NAME, max_length=LONGEST_NAME
    )
    seed: int = key(2306, "seed from which all random numbers of the run are derived", ge=0)
    parts: Parts = key(Parts(), "how the work is cut into jobs")
    pool: Pool = key(Pool(), "the images among which attribution searches")
    exemplars: Exemplars = key(Exemplars(), "the ground truth")
    prompts: Prompts = key(Prompts(), "the prompts for each customized model")
    base_model: Family = key(
        family("bundled"),
        "the model that is customized: a family of `attrib_core/diffusion/base_models` and its options",
    )
    customizer: Family = key(
        family("custom_diffusion"),
        "how a model is customized: a family of `attrib_core/diffusion/customizers` and its options",
    )
    prior: Family = key(
        family("generated"),
        "images of the classes for prior preservation, where `customizer.prior_batch` is not 0: a family of"
        " `attrib_core/diffusion/priors` and its options",
    )
    synthesis: Synthesis = key(Synthesis(), "how images are synthesized")
    encoders: dict[Name, Family] = key(
        {
            "pixel": family("pixel", size=16),
            "layout": family(
                "fusion",
                parts={
                    "colours": {"family": "pixel", "size": 16},
                    "shapes": EFFICIENTNET | {"stages": [2], "cells": 4},
                },
            ),
            "look": family(
                "fusion",
                parts={
                    "palette": {"family": "palette"},
                    "places": {"family": "pixel", "size": 8, "centred": False},
                    "texture": EFFICIENTNET | {"stages": [1, 3], "deviation": True},
                },
            ),
        },
        "encoders by a name of your own: each a family of `attrib_core/features/encoders` and its options,"
        " or `preset` and options that differ from it",
        min_length=1,
    )
    index: Index = key(Index(), "indices of the pool for retrieval")
    mapper: Mapper = key(Mapper(), "heads on frozen encoders")
    ranking: Ranking = key(Ranking(), "exact ranks")
    metrics: Metrics = key(Metrics(), "what the tables report")
    calibration: Calibration = key(Calibration(), "soft influence scores")
    report: Report = key(Report(), "the page of results")
