"""Generated AbC files, commands on them, and the published protocol as plain code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.abc_benchmark import feature_files, test_cases
from attrib_core.cli.main import main

KINDS = ("gpt", "object")


@dataclass
class AbcCase:
    """Features of a pool, and of models with `sizes` exemplars each."""

    pool: np.ndarray
    exemplars: np.ndarray
    sizes: list[int]
    queries: dict[str, np.ndarray]
    models: dict[str, list[int]]
    categories: list[str | None] = field(default_factory=list)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        ends = np.cumsum(self.sizes).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    @property
    def synth_paths(self) -> dict[str, list[str]]:
        numbers = {kind: range(len(rows)) for kind, rows in self.queries.items()}
        return {kind: [f"dataset/synth/{kind}/{i}.png" for i in own] for kind, own in numbers.items()}

    def _model_paths(self, kind: str, model: int) -> list[str]:
        models = zip(self.synth_paths[kind], self.models[kind], strict=True)
        return [path for path, own in models if own == model]

    def content(self) -> dict[str, Any]:
        return {
            "exemplar_paths": [f"dataset/exemplar/{i}.png" for i in range(len(self.exemplars))],
            "exemplar_chunks": self.chunks,
            "exemplar_tensors": torch.from_numpy(self.exemplars),
            "synth_paths": self.synth_paths,
            "synth_ids": dict(self.models),
            "synth_tensors": {kind: torch.from_numpy(rows) for kind, rows in self.queries.items()},
        }  # fmt: skip

    def write(self, folder: Path, *, name: str = "test_case", **changes: Any) -> dict[str, Path]:
        """Write pool, test features and JSON; `changes` replace entries of the test features."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = {
            "pool": folder / "laion_subset.pth",
            "test": folder / f"{name}.pth",
            "cases": folder / f"{name}.json",
        }
        pool_paths = [f"laion/{i}.jpg" for i in range(len(self.pool))]
        torch.save({"feats": torch.from_numpy(self.pool), "paths": pool_paths}, paths["pool"])
        content = self.content() | changes
        torch.save(content, paths["test"])
        entries = [
            {
                "exemplar": self.content()["exemplar_paths"][start:end],
                "synth": {kind: self._model_paths(kind, model) for kind in self.queries},
                "class_id": f"n{model:08d}",
                "category": self.categories[model] if self.categories else None,
            }
            for model, (start, end) in enumerate(self.chunks)
        ]  # fmt: skip
        paths["cases"].write_text(json.dumps(entries))
        return paths


def abc_case(
    seed: int,
    *,
    rows: int = 400,
    dim: int = 32,
    sizes: list[int] | None = None,
    each: int = 4,
    signal: float = 0.8,
) -> AbcCase:
    """Random features that are not of unit length; queries are close to an exemplar of their model."""
    rng = np.random.default_rng(seed)
    sizes = sizes or [1, 4, 12, 67, 1]
    pool, exemplars = (
        (rng.standard_normal((n, dim)) * rng.uniform(0.2, 30, (n, 1))).astype(np.float32)
        for n in (rows, sum(sizes))
    )
    ends = np.cumsum(sizes)
    queries, models = {}, {}
    for kind in KINDS:
        own = rng.permutation(np.repeat(np.arange(len(sizes)), each))
        base = np.stack([exemplars[rng.integers(ends[m] - sizes[m], ends[m])] for m in own])
        base /= np.linalg.norm(base, axis=1, keepdims=True)
        noise = rng.standard_normal(base.shape) / np.sqrt(dim)
        queries[kind] = (7 * (signal * base + (1 - 0.5 * signal) * noise)).astype(np.float32)
        models[kind] = own.tolist()
    categories: list[str | None] = [("dog", "bird", None)[m % 3] for m in range(len(sizes))]
    return AbcCase(pool, exemplars, sizes, queries, models, categories)


def _linear(rng: np.random.Generator, dim: int) -> torch.nn.Module:
    layer = torch.nn.Linear(dim, dim)
    layer.weight.data = (
        torch.eye(dim) + 0.2 * torch.from_numpy(rng.standard_normal((dim, dim))).float() / dim**0.5
    )
    layer.bias.data = 0.1 * torch.from_numpy(rng.standard_normal(dim)).float()
    return layer


def mlp(rng: np.random.Generator, dim: int, layers: int = 2) -> torch.nn.Module:
    parts: list[torch.nn.Module] = []
    for number in range(layers):
        first, last = number == 0, number == layers - 1
        inner = torch.nn.Linear(dim if first else 48, 24 if last else 48, bias=False)
        inner.weight.data = (
            torch.from_numpy(rng.standard_normal(tuple(inner.weight.shape))).float() / dim**0.5
        )
        norm = torch.nn.BatchNorm1d(24 if last else 48, affine=not last)
        norm.running_mean = torch.from_numpy(rng.standard_normal(norm.num_features)).float()
        norm.running_var = torch.from_numpy(rng.uniform(0.5, 2, norm.num_features)).float()
        parts += [inner, norm]
        if not last:
            norm.weight.data = torch.from_numpy(rng.uniform(0.5, 2, norm.num_features)).float()
            norm.bias.data = torch.from_numpy(rng.standard_normal(norm.num_features)).float()
            parts += [torch.nn.ReLU(inplace=True), torch.nn.Dropout(0.3)]
    return torch.nn.Sequential(*parts)


class Channel(torch.nn.Module):
    def __init__(self, rng: np.random.Generator, dim: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.from_numpy(rng.uniform(0.3, 2, (1, dim))).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights


def mappers(kind: str, dim: int, folder: Path) -> tuple[list[torch.nn.Module | None], Path | None]:
    """Return the real and the synth head of a kind, and their checkpoint."""
    if kind == "untuned":
        return [None, None], None
    rng = np.random.default_rng(7)
    heads = [{"linear": _linear, "mlp": mlp, "channel": Channel}[kind](rng, dim) for _ in range(2)]
    path = folder / f"{kind}_tuned.pth"
    save_mapper(heads, path)
    return list(heads), path


def save_mapper(heads: list[torch.nn.Module], path: Path) -> None:
    """Save the real and the synth head as an AbC checkpoint."""
    torch.save({"real_mapper": heads[0].state_dict(), "synth_mapper": heads[1].state_dict()}, path)


def unit(vectors: np.ndarray, head: torch.nn.Module | None) -> np.ndarray:
    """Map and normalise in float64."""
    with torch.no_grad():
        x = torch.from_numpy(vectors).double()
        x = x if head is None else head.double().eval()(x)
        return torch.nn.functional.normalize(x, dim=-1).numpy()


def protocol(
    case: AbcCase, heads: list[torch.nn.Module | None], ks: list[int]
) -> dict[str, list[tuple[float, dict[int, float], np.ndarray]]]:
    """Evaluate as published, in float64: for each query concatenate, multiply, sort everything.

    Returns, by prompt kind and query, the average precision, recall by K, and the exemplars' positions.
    """
    pool, exemplars = unit(case.pool, heads[0]), unit(case.exemplars, heads[0])
    found: dict[str, list[tuple[float, dict[int, float], np.ndarray]]] = {}
    for kind, vectors in case.queries.items():
        found[kind] = []
        for query, model in zip(unit(vectors, heads[1]), case.models[kind], strict=True):
            start, end = case.chunks[model]
            database = np.concatenate([pool, exemplars[start:end]])
            order = np.argsort(-(database @ query))
            hits = np.flatnonzero(order >= len(pool)) + 1
            precision = np.mean(np.arange(1, len(hits) + 1) / hits)
            recall = {k: float((hits <= k).sum() / (end - start)) for k in ks}
            found[kind].append((float(precision), recall, hits))
    return found


def run_evaluate(paths: dict[str, Path], out: Path, *options: str) -> int:
    """Run `abc evaluate` on the files of `AbcCase.write`."""
    files = ["--pool", str(paths["pool"]), "--test", str(paths["test"])]
    return main(["abc", "evaluate", *files, "--out", str(out), *options])


def memory_case(case: AbcCase) -> tuple[feature_files.Matrix, test_cases.TestCase]:
    """Pool and test case as if read from files."""

    def matrix(name: str, vectors: np.ndarray) -> feature_files.Matrix:
        def blocks(step: int) -> Any:
            for start in range(0, len(vectors), step):
                yield feature_files.Block(start, vectors[start : start + step], None)

        return feature_files.Matrix(name, *vectors.shape, blocks)

    queries = [
        test_cases.Queries(kind, matrix(kind, rows), np.array(case.models[kind]), None)
        for kind, rows in case.queries.items()
    ]
    test = test_cases.TestCase(
        Path("case.pth"), matrix("exemplars", case.exemplars), None, np.array(case.chunks), queries
    )
    return matrix("pool", case.pool), test


def evaluate_error(paths: dict[str, Path], capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line of an evaluation that must fail."""
    out = paths["pool"].parent / "out"
    assert run_evaluate(paths, out, *options) == 2
    shown = capsys.readouterr()
    assert "code was run" not in shown.out and not out.exists()
    lines = [line for line in shown.err.splitlines() if not line.startswith("[abc")]
    assert len(lines) == 1 and lines[0].startswith("error: "), shown.err
    return lines[0]


SMALL_CASE = abc_case(1, rows=20, dim=6, sizes=[1, 3, 2], each=2)
