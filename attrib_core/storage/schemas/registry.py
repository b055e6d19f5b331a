"""The tables that pass between stages, by name: one pyarrow schema each, defined in modules by subject.

`docs/data.md` is generated from here. Image columns have the layout of the Hugging Face `Image` feature, so that
`datasets` opens them. A new table is an entry of SCHEMAS and one of FILES; only stages that name it run again (see
`code_walk.BY_LITERAL`).
"""

from __future__ import annotations

import json

import pyarrow as pa

from attrib_core.storage import run_layout
from attrib_core.storage.run_layout import documented
from attrib_core.storage.schemas import abc_benchmark, attribution, generation
from attrib_core.storage.schemas.abc_benchmark import abc_per_query_schema as abc_per_query_schema
from attrib_core.storage.schemas.columns import IMAGE, TEXT, column

SCHEMAS: dict[str, pa.Schema] = {
    "pool": generation.POOL,
    "rejects": generation.REJECTS,
    "exemplars": generation.EXEMPLARS,
    "prompts": generation.PROMPTS,
    "excluded": generation.EXCLUDED,
    "prior": generation.PRIOR,
    "models": generation.MODELS,
    "synthesized": generation.SYNTHESIZED,
    "queries": generation.QUERIES,
    "mapper_curve": attribution.MAPPER_CURVE,
    "index_ids": attribution.INDEX_IDS,
    "ranks": attribution.RANKS,
    "candidates": attribution.CANDIDATES,
    "metrics": attribution.METRICS,
    "comparisons": attribution.COMPARISONS,
    "strata": attribution.STRATA,
    "matched": attribution.MATCHED,
    "soft_scores": attribution.SOFT_SCORES,
    "calibration": attribution.CALIBRATION,
    "reliability": attribution.RELIABILITY,
    "attributions": attribution.ATTRIBUTIONS,
    "abc_metrics": abc_benchmark.ABC_METRICS,
    "abc_comparisons": abc_benchmark.ABC_COMPARISONS,
    "abc_calibration": abc_benchmark.ABC_CALIBRATION,
    "abc_reliability": abc_benchmark.ABC_RELIABILITY,
}

FILES: dict[str, str] = {
    "pool": documented(run_layout.POOL_PART),
    "rejects": documented(run_layout.POOL_REJECTS),
    "exemplars": run_layout.EXEMPLARS,
    "prompts": run_layout.PROMPTS,
    "excluded": run_layout.EXCLUDED,
    "prior": run_layout.PRIOR_IMAGES,
    "models": documented(run_layout.MODELS_PART),
    "synthesized": f"{documented(run_layout.SYNTHESIZED_PART)}, {documented(run_layout.SAMPLE_PART)}",
    "queries": documented(run_layout.QUERIES_PART),
    "mapper_curve": f"{documented(run_layout.MAPPER_CURVE)}, NAME.curve.parquet of abc tune --out NAME.pth",
    "index_ids": documented(run_layout.INDEX_IDS),
    "ranks": documented(run_layout.RANKS),
    "candidates": documented(run_layout.CANDIDATES),
    "metrics": run_layout.METRICS,
    "comparisons": run_layout.COMPARISONS,
    "strata": run_layout.STRATA,
    "matched": run_layout.MATCHED,
    "soft_scores": f"{documented(run_layout.SOFT_SCORES)}, DIR/soft_scores.parquet of abc calibrate",
    "calibration": documented(run_layout.CALIBRATION),
    "reliability": documented(run_layout.RELIABILITY),
    "attributions": "FILE of attribute IMAGE --out FILE, as Parquet or CSV",
    "embeddings": f"{documented(run_layout.POOL_EMBEDDINGS)}, {documented(run_layout.QUERY_EMBEDDINGS)}, "
    f"{documented(run_layout.EXEMPLAR_EMBEDDINGS)}",
    "abc_metrics": "DIR/metrics.parquet of abc evaluate --out DIR",
    "abc_comparisons": "DIR/comparisons.parquet of abc compare --out DIR",
    "abc_calibration": "DIR/calibration.parquet of abc calibrate --out DIR",
    "abc_reliability": "DIR/reliability.parquet of abc calibrate --out DIR",
    "abc_per_query": "DIR/per_query.parquet of abc evaluate --out DIR",
}
"""The files of each table, below the folder of the run."""


def embedding_schema(dim: int) -> pa.Schema:
    """Return the schema of a part of embeddings: image_id and a float32 vector of fixed length."""
    vector = pa.list_(pa.field("item", pa.float32(), nullable=False), dim)
    return pa.schema(
        [
            column("image_id", TEXT, "image_id, exemplar_id or query_id of the embedded image"),
            column("embedding", vector, "feature vector as the encoder gives it, not normalised"),
        ]
    )


def schema(name: str) -> pa.Schema:
    """Return the schema of a table by name. Raises KeyError with the tables that exist."""
    try:
        found = SCHEMAS[name]
    except KeyError:
        raise KeyError(f"no table {name!r}; known: {', '.join(SCHEMAS)}") from None
    return _with_features(found) if IMAGE in found.types else found


def _with_features(plain: pa.Schema) -> pa.Schema:
    """Return a schema with the file metadata by which Hugging Face `datasets` decodes its images."""
    features = {
        field.name: {"_type": "Image"}
        if field.type.equals(IMAGE)
        else {"_type": "Value", "dtype": str(field.type)}
        for field in plain
    }
    return plain.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
