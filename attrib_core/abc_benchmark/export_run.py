"""A run of this project in the layout of the published benchmark, so that its code reads it.

    feats/<encoder>/laion_subset.pth      the pool's distractors (the published name, whatever they are)
    feats/<encoder>/<split>_<kind>.pth    exemplars and synthesized images of one kind of sets
    dataset/json/<split>_<kind>.json      the models behind them
    weights/mapper/<encoder>_tuned*.pth   the run's heads; those trained on one kind are named after it

Paths in these files follow the published pattern and name the rows of the run; no images are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from attrib_core.abc_benchmark.feature_files import Matrix, open_pool
from attrib_core.abc_benchmark.mapper_export import checkpoint
from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.heads import heads
from attrib_core.storage import atomic, tables, torch_files

EXEMPLARS = ("exemplar_id", "exemplar_set", "kind", "category", "split")
QUERIES = ("query_id", "exemplar_set", "condition", "prompt_kind", "prompt_index", "sample_index")
BLOCK = 8192


class _Model(NamedTuple):
    """An exemplar set: its exemplars, and its queries by prompt kind."""

    name: str
    kind: str
    category: str
    exemplars: list[str]
    queries: dict[str, list[str]]


def export(run: Path, *, encoder: str, out: Path, splits: Sequence[str] = ("test",)) -> Iterator[Path]:
    """Write the released layout of some splits of a run, yielding each file; images of the control are left out.

    Raises InputError for a folder that is no run, an encoder that it lacks, and a split without models.
    """
    folder = _embeddings(Path(run), encoder)
    models = {split: _models(Path(run), split) for split in splits}
    for split, found in models.items():
        if not found:
            raise InputError(
                f"{run}: no exemplar sets of the split {split!r} with synthesized images, expected some"
            )
    feats = Path(out) / "feats" / encoder
    pool = open_pool(folder / "pool")
    yield write_pool(_kept(pool, _excluded(Path(run))), pool.dim, feats / "laion_subset.pth")
    exemplars, queries = (_vectors(open_pool(folder / name)) for name in ("exemplars.parquet", "queries"))
    for split, found in models.items():
        for kind in sorted({model.kind for model in found}):
            own = [model for model in found if model.kind == kind]
            entries = _entries(own)
            content = _features(own, entries, exemplars, queries, folder)
            yield torch_files.save(content, feats / f"{split}_{kind}.pth")
            path = Path(out) / "dataset" / "json" / f"{split}_{kind}.json"
            tables.write_json(path, entries)
            yield path
    for path in sorted((Path(run) / "mappers" / encoder).glob("*.safetensors")):
        trained_on = path.stem.rpartition("-")[2]
        name = f"{encoder}_tuned.pth" if trained_on in ("", "both") else f"{encoder}_tuned-{trained_on}.pth"
        yield torch_files.save(checkpoint(heads.load(path)), Path(out) / "weights" / "mapper" / name)


def _embeddings(run: Path, encoder: str) -> Path:
    folder = run / "embeddings"
    if not folder.is_dir():
        raise InputError(f"--run: {run} has no folder embeddings, expected the folder of a run: results/NAME")
    known = [path.name for path in folder.iterdir() if path.is_dir()]
    if encoder not in known:
        raise InputError(
            f"--encoder: {encoder!r} has no embeddings in {run}, {close_matches(encoder, known)}"
        )
    return folder / encoder


def _models(run: Path, split: str) -> list[_Model]:
    """The models of a split in the order of the table of exemplars, queries by prompt and sample."""
    models: dict[str, _Model] = {}
    for row in tables.read(run / "exemplars.parquet", "exemplars", EXEMPLARS).to_pylist():
        if row["split"] == split:
            new = _Model(row["exemplar_set"], row["kind"], row["category"], [], {})
            models.setdefault(row["exemplar_set"], new).exemplars.append(row["exemplar_id"])
    parts = sorted((run / "synthesized").glob("queries-*.parquet"))
    if not parts:
        raise InputError(
            f"--run: {run} has no synthesized/queries-*.parquet, expected a run that came to its end"
        )
    rows = tables.read_parts(parts, "queries", QUERIES).to_pylist()
    rows.sort(key=lambda row: (row["prompt_index"], row["sample_index"], row["query_id"]))
    for row in rows:
        if row["condition"] == "customized" and row["exemplar_set"] in models:
            models[row["exemplar_set"]].queries.setdefault(row["prompt_kind"], []).append(row["query_id"])
    return [model for model in models.values() if model.queries]


def _entries(models: Sequence[_Model]) -> list[dict[str, Any]]:
    """The JSON of test cases. Styles have no category, as published."""
    kinds = list(dict.fromkeys(kind for model in models for kind in model.queries))
    return [
        {
            "exemplar": [
                f"dataset/exemplar/{model.kind}/images/{model.name}/{name}.png" for name in model.exemplars
            ],
            "synth": {
                kind: [
                    f"dataset/synth/{model.kind}/{kind}/{model.name}/samples/{number:05d}.png"
                    for number in range(len(model.queries.get(kind, [])))
                ]
                for kind in kinds
            },
            "class_id": model.name,
            "category": model.category if model.kind == "object" else None,
        }
        for model in models
    ]


def _features(
    models: Sequence[_Model],
    entries: Sequence[dict[str, Any]],
    exemplars: dict[str, np.ndarray],
    queries: dict[str, np.ndarray],
    folder: Path,
) -> dict[str, Any]:
    """The content of a file of test features."""
    ends = np.cumsum([len(model.exemplars) for model in models]).tolist()
    kinds = list(entries[0]["synth"])
    return {
        "exemplar_paths": [path for entry in entries for path in entry["exemplar"]],
        "exemplar_chunks": list(zip([0, *ends[:-1]], ends, strict=True)),
        "exemplar_tensors": _tensor(
            [name for model in models for name in model.exemplars], exemplars, folder
        ),
        "synth_paths": {kind: [path for entry in entries for path in entry["synth"][kind]] for kind in kinds},
        "synth_ids": {
            kind: [number for number, entry in enumerate(entries) for _ in entry["synth"][kind]]
            for kind in kinds
        },
        "synth_tensors": {
            kind: _tensor([name for model in models for name in model.queries.get(kind, [])], queries, folder)
            for kind in kinds
        },
    }


def _tensor(names: Sequence[str], vectors: dict[str, np.ndarray], folder: Path) -> Any:
    import torch

    missing = [name for name in names if name not in vectors]
    if missing:
        raise InputError(
            f"{folder}: no embedding of {missing[0]!r}, expected those of all exemplars and queries"
        )
    return torch.from_numpy(np.stack([vectors[name] for name in names]))


def _vectors(matrix: Matrix) -> dict[str, np.ndarray]:
    return {
        name: vector
        for block in matrix.blocks(BLOCK)
        for name, vector in zip(block.names or (), block.vectors, strict=True)
    }


def _excluded(run: Path) -> frozenset[str]:
    return frozenset(tables.read(run / "excluded.parquet", "excluded", ["image_id"]).column(0).to_pylist())


def _kept(pool: Matrix, excluded: frozenset[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """The pool without its excluded rows, some at a time: paths in the published pattern, features."""
    found = False
    for block in pool.blocks(BLOCK):
        names = block.names or ()
        kept = [row for row, name in enumerate(names) if name not in excluded]
        found = found or bool(kept)
        yield [f"dataset/laion_subset/{names[row]}.png" for row in kept], block.vectors[kept]
    if not found:
        raise InputError(f"{pool.where}: all {pool.rows} rows are excluded, expected distractors")


def write_pool(parts: Iterable[tuple[Sequence[str], np.ndarray]], dim: int, path: Path) -> Path:
    """A pool in the released layout, from paths and (n, dim) features, which need not fit in memory together.

    They are gathered in a file beside `path`; so for a while the disk holds them twice.
    """
    import torch

    names: list[str] = []
    with (
        atomic.written(path) as temporary,
        TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=f".{os.getpid()}.tmp") as scratch,
    ):
        file = Path(scratch) / "feats"
        with file.open("wb") as stream:
            for some, vectors in parts:
                names += some
                stream.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        feats = torch.from_file(str(file), shared=False, size=len(names) * dim, dtype=torch.float32)
        with temporary.open("wb") as stream:
            torch.save({"feats": feats.reshape(len(names), dim), "paths": names}, stream)
    return path
