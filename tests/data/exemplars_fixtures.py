"""A pool of labels and hashes without real images, to draw exemplar sets from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrib_core.common import hashing
from attrib_core.data.exemplars import plan
from attrib_core.storage import tables

CATEGORIES = ("animal", "bird", "drink", "fruit", "tool", "toy")
STYLES = ("inlay", "fresco", "batik", "etching")
SETTINGS: dict[str, Any] = {
    "object_sets": 12,
    "style_sets": 3,
    "style_set_size": [2, 4],
    "splits": {"train": 0.5, "validation": 0.2, "test": 0.3},
    "unseen_categories": ["bird"],
    "near_duplicate_distance": 2,
    "held_out_only": True,
    "seed": 11,
}
HELD_OUT = {
    "subjects": [f"{category} {number}" for category in CATEGORIES for number in range(4)],
    "styles": list(STYLES),
}


def pool_row(image_id: str, subject: str | None, category: str | None, style: str | None) -> dict[str, Any]:
    """A row of the pool with a random hash that depends on its id."""
    value = int(hashing.generator(image_id).integers(-(2**63), 2**63))
    return {
        "image_id": image_id,
        "image": {"bytes": image_id.encode(), "path": None},
        "caption": f"a {subject} in the snow",
        "subject": subject,
        "category": category,
        "style": style,
        "width": 64,
        "height": 64,
        "perceptual_hash": value,
        "licence": "CC0-1.0",
        "attribution": "nobody",
    }


def pool_rows() -> list[dict[str, Any]]:
    """Six categories of six objects, of which four are held out; each plain and as mosaic; four styles."""
    rows = []
    for category in CATEGORIES:
        for number in range(6):
            subject = f"{category} {number}"
            rows.append(pool_row(f"{subject}.plain", subject, category, None))
            rows.append(pool_row(f"{subject}.mosaic", subject, category, "mosaic"))
    for style in STYLES:
        rows += [pool_row(f"tool {number}.{style}", f"tool {number}", "tool", style) for number in range(5)]
    return rows


def write_pool(folder: Path, rows: list[dict[str, Any]], size: int = 1000) -> list[Path]:
    """Write the rows as parts of the pool with `size` rows each, in a new folder below `folder`."""
    new = folder / f"pool-{len(list(folder.iterdir()))}"
    starts = range(0, len(rows), size)
    paths = [new / f"part-{number:04d}.parquet" for number in range(len(starts))]
    for path, start in zip(paths, starts, strict=True):
        tables.write(path, "pool", rows[start : start + size])
    return paths


def make_plan(parts: list[Path], *, held_out: Any = HELD_OUT, **changes: Any) -> plan.Plan:
    """The plan of SETTINGS with some changes."""
    source = changes.pop("source", "openmoji")
    return plan.plan(parts, **{**SETTINGS, **changes}, held_out=held_out, source=source)


def sets_of(result: plan.Plan) -> dict[str, list[dict[str, Any]]]:
    """Rows of a plan by exemplar set."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for row in result.exemplars:
        sets.setdefault(row["exemplar_set"], []).append(row)
    return sets
