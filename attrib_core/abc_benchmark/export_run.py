"""Write a run in the layout of the AbC files, so that the published code reads it.

    feats/<encoder>/laion_subset.pth      the pool's distractors (the published name, whatever they are)
    feats/<encoder>/<split>_<kind>.pth    exemplars and synthesized images of one kind of exemplar sets
    dataset/json/<split>_<kind>.json      the image paths of their models
    weights/mapper/<encoder>_tuned*.pth   the run's heads; those trained on one kind are named after it

Paths in these files follow the published pattern and name the rows of the run; no images are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attrib_core.abc_benchmark.feature_files import Matrix, open_pool, write_pool
from attrib_core.abc_benchmark.mapper_export import checkpoint
from attrib_core.abc_benchmark.test_cases import Description, feature_content
from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.heads import heads
from attrib_core.storage import run_layout, tables, torch_files

EXEMPLARS = ("exemplar_id", "exemplar_set", "kind", "category", "split")
QUERIES = ("query_id", "exemplar_set", "condition", "prompt_kind", "prompt_index", "sample_index")
BLOCK = 8192


class _Model(NamedTuple):
    """An exemplar set with its exemplars, and its queries by prompt kind."""

    name: str
    kind: str
    category: str
    exemplars: list[str]
    queries: dict[str, list[str]]


def export(run: Path, *, encoder: str, out: Path, splits: Sequence[str] = ("test",)) -> Iterator[Path]:
    """Write the AbC files of some splits of a run; yield the path of each. Control images are left out.

    Raises InputError for a folder that is no run, an encoder without embeddings, and a split without models.
    """
    run = Path(run)
    folder = _embeddings(run, encoder)
    models = {split: _models(run, split) for split in splits}
    for split, found in models.items():
        if not found:
            raise InputError(
                f"{run}: no exemplar sets of the split {split!r} with synthesized images, expected some"
            )
    feats = Path(out) / "feats" / encoder
    pool = open_pool(run_layout.folder(run, run_layout.POOL_EMBEDDINGS, encoder=encoder))
    yield write_pool(_distractors(pool, run), pool.dim, feats / "laion_subset.pth")
    exemplar_vectors = _vectors(run_layout.path(run, run_layout.EXEMPLAR_EMBEDDINGS, encoder=encoder))
    query_vectors = _vectors(run_layout.folder(run, run_layout.QUERY_EMBEDDINGS, encoder=encoder))
    for split, found in models.items():
        for kind in sorted({model.kind for model in found}):
            own = [model for model in found if model.kind == kind]
            entries = _entries(own)
            exemplars = [name for model in own for name in model.exemplars]
            queries = {
                prompt_kind: [name for model in own for name in model.queries.get(prompt_kind, [])]
                for prompt_kind in entries[0].synth
            }
            content = feature_content(
                entries,
                _tensor(exemplars, exemplar_vectors, folder),
                {
                    prompt_kind: _tensor(names, query_vectors, folder)
                    for prompt_kind, names in queries.items()
                },
            )
            yield torch_files.save(content, feats / f"{split}_{kind}.pth")
            path = Path(out) / "dataset" / "json" / f"{split}_{kind}.json"
            tables.write_json(path, [asdict(entry) for entry in entries])
            yield path
    for path in sorted(run.glob(run_layout.MAPPER.format(encoder=encoder, mapper="*"))):
        trained_on = path.stem.rpartition("-")[2]
        name = f"{encoder}_tuned.pth" if trained_on in ("", "both") else f"{encoder}_tuned-{trained_on}.pth"
        yield torch_files.save(checkpoint(heads.load(path)), Path(out) / "weights" / "mapper" / name)


def _embeddings(run: Path, encoder: str) -> Path:
    folder = run / run_layout.EMBEDDINGS
    if not folder.is_dir():
        raise InputError(f"--run: {run} has no folder embeddings, expected the folder of a run: results/NAME")
    known = [path.name for path in folder.iterdir() if path.is_dir()]
    if encoder not in known:
        raise InputError(
            f"--encoder: {encoder!r} has no embeddings in {run}, {close_matches(encoder, known)}"
        )
    return folder / encoder


def _models(run: Path, split: str) -> list[_Model]:
    """Return the models of a split in the order of the exemplars, their queries by prompt and sample."""
    models: dict[str, _Model] = {}
    for row in tables.read(run / run_layout.EXEMPLARS, "exemplars", EXEMPLARS).to_pylist():
        if row["split"] == split:
            new = _Model(row["exemplar_set"], row["kind"], row["category"], [], {})
            models.setdefault(row["exemplar_set"], new).exemplars.append(row["exemplar_id"])
    parts = run_layout.find_parts(run, run_layout.QUERIES_PART).values()
    if not parts:
        raise InputError(
            f"--run: {run} has no {run_layout.documented(run_layout.QUERIES_PART)}, expected a finished run"
        )
    rows = tables.read_parts(parts, "queries", QUERIES).to_pylist()
    rows.sort(key=lambda row: (row["prompt_index"], row["sample_index"], row["query_id"]))
    for row in rows:
        if row["condition"] == "customized" and row["exemplar_set"] in models:
            models[row["exemplar_set"]].queries.setdefault(row["prompt_kind"], []).append(row["query_id"])
    return [model for model in models.values() if model.queries]


def _entries(models: Sequence[_Model]) -> list[Description]:
    """Return the JSON of test cases. Styles have no category, as published."""
    kinds = list(dict.fromkeys(kind for model in models for kind in model.queries))
    return [
        Description(
            [f"dataset/exemplar/{model.kind}/images/{model.name}/{name}.png" for name in model.exemplars],
            {
                kind: [
                    f"dataset/synth/{model.kind}/{kind}/{model.name}/samples/{number:05d}.png"
                    for number in range(len(model.queries.get(kind, [])))
                ]
                for kind in kinds
            },
            model.name,
            model.category if model.kind == "object" else None,
        )
        for model in models
    ]


def _tensor(names: Sequence[str], vectors: dict[str, np.ndarray], folder: Path) -> Any:
    import torch

    missing = [name for name in names if name not in vectors]
    if missing:
        raise InputError(
            f"{folder}: no embedding of {missing[0]!r}, expected those of all exemplars and queries"
        )
    return torch.from_numpy(np.stack([vectors[name] for name in names]))


def _vectors(path: Path) -> dict[str, np.ndarray]:
    """Return the embeddings of a file or folder by image."""
    return {
        name: vector
        for block in open_pool(path).blocks(BLOCK)
        for name, vector in zip(block.names or (), block.vectors, strict=True)
    }


def _distractors(pool: Matrix, run: Path) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield paths and features of the pool without its excluded rows, block by block."""
    excluded = set(tables.read(run / run_layout.EXCLUDED, "excluded", ["image_id"]).column(0).to_pylist())
    found = False
    for block in pool.blocks(BLOCK):
        names = block.names or ()
        kept = [row for row, name in enumerate(names) if name not in excluded]
        found = found or bool(kept)
        yield [f"dataset/laion_subset/{names[row]}.png" for row in kept], block.vectors[kept]
    if not found:
        raise InputError(f"{pool.where}: all {pool.rows} rows are excluded, expected distractors")
