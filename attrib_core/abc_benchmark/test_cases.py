"""Test cases in the published layout: features (`test_*.pth`) and the JSON that they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.abc_benchmark.feature_files import Matrix, names_of, tensor_matrix
from attrib_core.common.errors import InputError
from attrib_core.storage import torch_files
from attrib_core.storage.torch_files import describe

KEYS = ("exemplar_paths", "exemplar_chunks", "exemplar_tensors", "synth_paths", "synth_ids", "synth_tensors")
CLOBBERED = {"exemplar": "train"}
"""Four published entries read "exemplar" where "train" (the vehicle) is meant: a rename hit the value."""


@dataclass(frozen=True, eq=False)
class Queries:
    """The synthesized images of one prompt kind: features, and the model (0, 1, ...) of each."""

    prompt_kind: str
    features: Matrix
    models: np.ndarray
    paths: Sequence[str] | None


@dataclass(frozen=True, eq=False)
class TestCase:
    """One `test_*.pth`: model m was customized on the exemplars chunks[m][0]:chunks[m][1]."""

    __test__ = False

    path: Path
    exemplars: Matrix
    exemplar_paths: Sequence[str] | None
    chunks: np.ndarray
    queries: list[Queries]


def read_test(path: Path) -> TestCase:
    """A file of test features; its tensors stay on disk.

    Raises InputError, with file and key, for what cannot be read or does not fit together: keys, types
    and shapes, chunks that overlap, are empty or run past the end, queries of no model, an empty set.
    """
    path = Path(path)
    content = torch_files.read(path, tensors="mapped")
    if not isinstance(content, dict) or not set(KEYS) <= set(content):
        raise InputError(f"{path}: is {describe(content)}, expected a dict with {', '.join(KEYS)}")
    exemplars = tensor_matrix(path, "exemplar_tensors", content["exemplar_tensors"])
    if not exemplars.rows:
        raise InputError(f"{exemplars.where}: no rows, expected at least one exemplar")
    paths = names_of(path, "exemplar_paths", content["exemplar_paths"], exemplars.rows)
    chunks = _chunks(path, content["exemplar_chunks"], exemplars.rows)
    tensors = content["synth_tensors"]
    if not isinstance(tensors, dict) or not tensors:
        raise InputError(
            f"{path}: synth_tensors is {describe(tensors)}, expected a tensor for each prompt kind"
        )
    queries = [_queries(path, content, kind, len(chunks)) for kind in tensors]
    for one in queries:
        if one.features.dim != exemplars.dim:
            raise InputError(
                f"{one.features.where}: {one.features.dim} dimensions, but exemplar_tensors has"
                f" {exemplars.dim}; expected one encoder"
            )
    return TestCase(path, exemplars, paths, chunks, queries)


def _queries(path: Path, content: Mapping[str, Any], kind: str, models: int) -> Queries:
    for key in ("synth_ids", "synth_paths"):
        if not isinstance(content[key], dict) or kind not in content[key]:
            raise InputError(
                f"{path}: {key} is {describe(content[key])}, expected an entry {kind!r} as in synth_tensors"
            )
    key = f"synth_tensors[{kind!r}]"
    features = tensor_matrix(path, key, content["synth_tensors"][kind])
    if not features.rows:
        raise InputError(f"{features.where}: no rows, expected at least one synthesized image")
    paths = names_of(path, f"synth_paths[{kind!r}]", content["synth_paths"][kind], features.rows)
    ids = _integers(path, f"synth_ids[{kind!r}]", content["synth_ids"][kind])
    if len(ids) != features.rows:
        raise InputError(
            f"{path}: synth_ids[{kind!r}] has {len(ids)} entries, expected one for each of {features.rows} rows"
        )
    wrong = np.flatnonzero((ids < 0) | (ids >= models))
    if len(wrong):
        raise InputError(
            f"{path}: synth_ids[{kind!r}][{wrong[0]}] is {ids[wrong[0]]}, expected a model from 0 to {models - 1}"
        )
    return Queries(str(kind), features, ids, paths)


def _integers(path: Path, key: str, values: Any) -> np.ndarray:
    try:
        found = np.asarray(values)
    except (ValueError, TypeError):
        found = np.empty(0)
    if found.ndim != 1 or not (len(found) == 0 or found.dtype.kind in "iu"):
        raise InputError(f"{path}: {key} is {describe(values)}, expected a list of whole numbers")
    return found.astype(np.int64)


def _chunks(path: Path, values: Any, rows: int) -> np.ndarray:
    """(models, 2): first exemplar and the one after the last, of each model."""
    key = f"{path}: exemplar_chunks"
    try:
        chunks = np.asarray(values)
    except (ValueError, TypeError):
        chunks = np.empty(0)
    if chunks.ndim != 2 or chunks.shape[1] != 2 or not len(chunks) or chunks.dtype.kind not in "iu":
        raise InputError(
            f"{key} is {describe(values)}, expected two whole numbers (start, end) for each model"
        )
    chunks = chunks.astype(np.int64)
    for model, (start, end) in enumerate(chunks.tolist()):
        if not 0 <= start < end:
            raise InputError(
                f"{key}[{model}] is ({start}, {end}), expected 0 <= start < end: at least one exemplar"
            )
        if end > rows:
            raise InputError(f"{key}[{model}] is ({start}, {end}), past the end of {rows} exemplars")
    order = np.lexsort((chunks[:, 1], chunks[:, 0]))
    overlap = np.flatnonzero(chunks[order][1:, 0] < chunks[order][:-1, 1])
    if len(overlap):
        one, other = order[overlap[0]], order[overlap[0] + 1]
        raise InputError(
            f"{key}: [{one}] is {tuple(chunks[one].tolist())} and [{other}] is {tuple(chunks[other].tolist())}:"
            " they overlap, expected exemplars of one model each"
        )
    return chunks


@dataclass(frozen=True)
class Description:
    """One entry of a JSON of test cases: a customized model."""

    exemplar: list[str]
    synth: dict[str, list[str]]
    class_id: str
    category: str | None


def read_descriptions(path: Path) -> list[Description]:
    """A JSON file of test cases, one entry a customized model. Raises InputError with file, entry and key."""
    try:
        entries = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a JSON of test cases") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: is {describe(entries)}, expected a list with an entry for each model")
    return [_description(f"{path}: entry {number}", entry) for number, entry in enumerate(entries)]


def _description(where: str, entry: Any) -> Description:
    if not isinstance(entry, dict) or not {"exemplar", "synth"} <= set(entry):
        raise InputError(
            f"{where} is {describe(entry)}, expected a dict with exemplar, synth, class_id, category"
        )
    exemplar, synth = entry["exemplar"], entry["synth"]
    if not _paths(exemplar) or not exemplar:
        raise InputError(f"{where}: exemplar is {describe(exemplar)}, expected a list of paths")
    if not isinstance(synth, dict) or not synth or not all(map(_paths, synth.values())):
        raise InputError(
            f"{where}: synth is {describe(synth)}, expected a list of paths for each prompt kind"
        )
    category = entry.get("category")
    if category is not None and not isinstance(category, str):
        raise InputError(f"{where}: category is {describe(category)}, expected text or null")
    return Description(exemplar, synth, str(entry.get("class_id")), CLOBBERED.get(category or "", category))


def _paths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(path, str) for path in value)


def categories(test: TestCase, path: Path) -> list[str | None]:
    """The category of each model of the features, from the JSON that they were made from.

    Raises InputError where the JSON describes other models: another number of them, or other exemplars.
    """
    found = read_descriptions(path)
    if len(found) != len(test.chunks):
        raise InputError(
            f"{path}: {len(found)} models, but {test.path} has {len(test.chunks)}; expected its JSON"
        )
    for model, (one, (start, end)) in enumerate(zip(found, test.chunks.tolist(), strict=True)):
        expected = list(test.exemplar_paths[start:end]) if test.exemplar_paths is not None else one.exemplar
        if one.exemplar != expected or len(one.exemplar) != end - start:
            raise InputError(
                f"{path}: entry {model} has exemplars {one.exemplar[:2]}, but {test.path} has {expected[:2]};"
                " expected the JSON that the features were made from"
            )
    return [one.category for one in found]


def digest(exemplars: np.ndarray) -> str:
    """What tells a model from others: a digest of its exemplars' features, (exemplars, dim), in any order."""
    return hashlib.sha256(b"".join(sorted(row.tobytes() for row in exemplars))).hexdigest()


def check_apart(
    known: Iterable[tuple[str, str]], others: Iterable[tuple[str, str]], *, option: str, of: str, lest: str
) -> None:
    """InputError where a model of `option` has the exemplars of one of `of`; both as names and digests.

    `lest` ends its message: what would be judged on what.
    """
    names = {key: name for name, key in known}
    for name, key in others:
        if key in names:
            raise InputError(
                f"{option}: model {name} has the exemplars of {names[key]} in {of}; expected other models, or {lest}"
            )
