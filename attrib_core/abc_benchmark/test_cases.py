"""Read AbC test cases: feature files (`test_*.pth`), and the JSON files that name their images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.abc_benchmark.feature_files import Matrix, row_names, tensor_matrix
from attrib_core.common.errors import InputError, shown
from attrib_core.storage import tables, text_files, torch_files
from attrib_core.storage.torch_files import describe

KEYS = ("exemplar_paths", "exemplar_chunks", "exemplar_tensors", "synth_paths", "synth_ids", "synth_tensors")
CATEGORY_FIXES = {"exemplar": "train"}
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
    """A file `test_*.pth`. Model m was customized on the exemplars chunks[m][0]:chunks[m][1]."""

    __test__ = False

    path: Path
    exemplars: Matrix
    exemplar_paths: Sequence[str] | None
    chunks: np.ndarray
    queries: list[Queries]


def read_test(path: Path) -> TestCase:
    """Read a file of test features; its tensors stay on disk.

    Raises InputError, with file and key, for what cannot be read or is inconsistent: keys, types, shapes,
    chunks that overlap, are empty or run past the end, queries of unknown models, an empty set.
    """
    path = Path(path)
    text_files.check_path(path)
    content = torch_files.read(path, tensors="mapped")
    if not isinstance(content, dict) or not set(KEYS) <= set(content):
        raise InputError(f"{path}: is {describe(content)}, expected a dict with {', '.join(KEYS)}")
    exemplars = tensor_matrix(path, "exemplar_tensors", content["exemplar_tensors"])
    if not exemplars.rows:
        raise InputError(f"{exemplars.where}: no rows, expected at least one exemplar")
    paths = row_names(path, "exemplar_paths", content["exemplar_paths"], exemplars.rows)
    chunks = _chunks(path, content["exemplar_chunks"], exemplars.rows)
    tensors = content["synth_tensors"]
    if not isinstance(tensors, dict) or not tensors:
        raise InputError(
            f"{path}: synth_tensors is {describe(tensors)}, expected a tensor for each prompt kind"
        )
    if len(set(map(str, tensors))) < len(tensors):
        raise InputError(
            f"{path}: synth_tensors is {describe(tensors)}, expected each prompt kind once, as a text"
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
    try:
        text_files.check_characters(str(kind))
    except InputError as error:
        raise InputError(f"{path}: synth_tensors has the prompt kind {shown(kind)}: {error}") from None
    for key in ("synth_ids", "synth_paths"):
        if not isinstance(content[key], dict) or kind not in content[key]:
            raise InputError(
                f"{path}: {key} is {describe(content[key])}, expected an entry {kind!r} as in synth_tensors"
            )
    features = tensor_matrix(path, f"synth_tensors[{kind!r}]", content["synth_tensors"][kind])
    if not features.rows:
        raise InputError(f"{features.where}: no rows, expected at least one synthesized image")
    paths = row_names(path, f"synth_paths[{kind!r}]", content["synth_paths"][kind], features.rows)
    key, values = f"synth_ids[{kind!r}]", content["synth_ids"][kind]
    ids = _integers(values)
    if ids is None or ids.ndim != 1:
        raise InputError(f"{path}: {key} is {describe(values)}, expected a list of whole numbers")
    if len(ids) != features.rows:
        raise InputError(
            f"{path}: {key} has {len(ids)} entries, expected one for each of {features.rows} rows"
        )
    wrong = np.flatnonzero((ids < 0) | (ids >= models))
    if len(wrong):
        raise InputError(
            f"{path}: {key}[{wrong[0]}] is {ids[wrong[0]]}, expected a model from 0 to {models - 1}"
        )
    return Queries(str(kind), features, ids, paths)


def _integers(values: Any) -> np.ndarray | None:
    """Return an int64 array, or None where the values are no array of integers."""
    try:
        array = torch_files.array(values) if hasattr(values, "layout") else np.asarray(values)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ):  # rows of several lengths; a tensor of a kind of its own in a list
        return None
    if array is None:
        return None
    return array.astype(np.int64) if array.dtype.kind in "iu" or array.shape == (0,) else None


def _chunks(path: Path, values: Any, rows: int) -> np.ndarray:
    """Return (models, 2) int64: the first exemplar of each model, and the one after its last."""
    key = f"{path}: exemplar_chunks"
    chunks = _integers(values)
    if chunks is None or chunks.ndim != 2 or chunks.shape[1] != 2 or not len(chunks):
        raise InputError(
            f"{key} is {describe(values)}, expected two whole numbers (start, end) for each model"
        )
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
    """One entry of a JSON of test cases: the image paths of a customized model."""

    exemplar: list[str]
    synth: dict[str, list[str]]
    class_id: str
    category: str | None


def read_descriptions(path: Path) -> list[Description]:
    """Read a JSON of test cases, one entry for each customized model.

    Raises InputError with file, entry and key.
    """
    entries = tables.read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: is {describe(entries)}, expected a list with an entry for each model")
    return [_description(f"{path}: entry {number}", entry) for number, entry in enumerate(entries)]


def _description(where: str, entry: Any) -> Description:
    if not isinstance(entry, dict) or not {"exemplar", "synth"} <= set(entry):
        raise InputError(
            f"{where} is {describe(entry)}, expected a dict with exemplar, synth, class_id, category"
        )
    exemplar, synth = entry["exemplar"], entry["synth"]
    if not _is_path_list(exemplar) or not exemplar:
        raise InputError(f"{where}: exemplar is {describe(exemplar)}, expected a list of paths")
    if not isinstance(synth, dict) or not synth or not all(map(_is_path_list, synth.values())):
        raise InputError(
            f"{where}: synth is {describe(synth)}, expected a list of paths for each prompt kind"
        )
    category = entry.get("category")
    if category is not None and not isinstance(category, str):
        raise InputError(f"{where}: category is {describe(category)}, expected text or null")
    category = CATEGORY_FIXES.get(category or "", category)
    return Description(exemplar, synth, str(entry.get("class_id")), category)


def _is_path_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(path, str) for path in value)


def feature_content(
    entries: Sequence[Description], exemplars: Any, synthesized: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of a file of test features, as `read_test` reads it.

    exemplars    tensor (exemplars, dim) in the order of the entries
    synthesized  tensors (images, dim) by prompt kind, each in the order of the entries
    """
    ends = np.cumsum([len(entry.exemplar) for entry in entries]).tolist()
    paths = {kind: [entry.synth.get(kind, []) for entry in entries] for kind in synthesized}
    return {
        "exemplar_paths": [path for entry in entries for path in entry.exemplar],
        "exemplar_chunks": list(zip([0, *ends[:-1]], ends, strict=True)),
        "exemplar_tensors": exemplars,
        "synth_paths": {kind: [path for own in models for path in own] for kind, models in paths.items()},
        "synth_ids": {
            kind: [model for model, own in enumerate(models) for _ in own] for kind, models in paths.items()
        },
        "synth_tensors": dict(synthesized),
    }


def categories(test: TestCase, path: Path) -> list[str | None]:
    """Return the category of each model of the features, from the JSON that they were made from.

    Raises InputError where the JSON describes another number of models, or other exemplars.
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


def exemplar_digest(exemplars: np.ndarray) -> str:
    """Return a digest of a model's exemplar features (exemplars, dim), whatever their order."""
    return hashlib.sha256(b"".join(sorted(row.tobytes() for row in exemplars))).hexdigest()


def check_disjoint(
    known: Iterable[tuple[str, str]], others: Iterable[tuple[str, str]], *, option: str, of: str, reason: str
) -> None:
    """Check that no model of `option` has the exemplars of a model of `of`.

    Models are pairs of a name and an `exemplar_digest`. Raises InputError, which ends with `reason`: what
    would be judged on what.
    """
    names = {key: name for name, key in known}
    for name, key in others:
        if key in names:
            raise InputError(
                f"{option}: model {name} has the exemplars of {names[key]} in {of}; expected other models, or {reason}"
            )
