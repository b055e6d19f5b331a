"""Compute the features of a test case or a pool from its images, in the layout of the AbC files.

The JSON of a test case says which images belong to which model. The feature file keeps its order and paths,
so that the published code and `abc evaluate` both read it, and has two more keys than the published files:
`class_ids`, and `categories` with the four wrong published entries corrected (see `CATEGORY_FIXES`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attrib_core.abc_benchmark.feature_files import write_pool
from attrib_core.abc_benchmark.test_cases import Description, feature_content, read_descriptions
from attrib_core.common.errors import InputError, shown_path
from attrib_core.data.images import is_flat
from attrib_core.data.sources.folder import SUFFIXES
from attrib_core.features.embedding import encode, encoder_protocol
from attrib_core.features.embedding.image_rows import ImageRow
from attrib_core.storage import relative_paths, text_files, torch_files

BLANK_SHOWN = 5
"""Names of blank images that are told."""


def embed_test_case(
    testcase: Path, images: Path, encoder: encoder_protocol.Encoder, out: Path, *, threads: int = -1
) -> Iterator[str]:
    """Write the features of a JSON of test cases; yield a message for each group of images, the blank ones, then
    the file.

    The paths in the JSON are relative to `images`; all files are checked before the first is read. Raises
    InputError for a missing or broken image, with its entry in the JSON, and for an encoder that reads
    text, which test cases do not have; nothing is written then.
    """
    _check_reads_images(encoder, str(testcase))
    entries = read_descriptions(testcase)
    _check_files_exist(testcase, images, entries)

    blank: set[str] = set()

    def features(paths: Sequence[str]) -> Any:
        """Return (paths, dim) float32 features, a tensor."""
        import torch

        blocks = [block for _, block in _encoded(paths, images, encoder, threads, blank)]
        return torch.from_numpy(np.concatenate(blocks) if blocks else np.empty((0, encoder.dim), np.float32))

    exemplars = [path for entry in entries for path in entry.exemplar]
    exemplar_features = features(exemplars)
    yield f"{len(entries)} models, {len(exemplars)} exemplars, {encoder.dim} features"
    synthesized: dict[str, Any] = {}
    for kind in dict.fromkeys(kind for entry in entries for kind in entry.synth):
        synthesized[kind] = features([path for entry in entries for path in entry.synth.get(kind, [])])
        yield f"{kind}: {len(synthesized[kind])} synthesized images"
    more = {
        "class_ids": [entry.class_id for entry in entries],
        "categories": [entry.category for entry in entries],
    }
    torch_files.save(feature_content(entries, exemplar_features, synthesized) | more, out)
    yield from _tell_blank(blank)
    yield f"wrote {out}"


def embed_pool(
    folder: Path,
    encoder: encoder_protocol.Encoder,
    out: Path,
    *,
    listed: Path | None = None,
    threads: int = -1,
) -> Iterator[str]:
    """Write `feats` (images, dim) float32 and `paths` of a folder's images; yield a message before and after,
    and one that names blank images.

    The rows are those of `find_images`, or of `read_list` if `listed` is given; paths are relative to the
    folder, with "/" as separator. Features are written as they are computed, so that memory holds a few
    batches and the paths. Raises InputError for a missing or broken image, by name, and for an encoder that
    reads text; nothing is written then.
    """
    _check_reads_images(encoder, str(folder))
    paths = find_images(folder) if listed is None else read_list(listed, folder)
    yield f"{len(paths)} images, {encoder.dim} features"
    blank: set[str] = set()
    write_pool(_encoded(paths, folder, encoder, threads, blank), encoder.dim, out)
    yield from _tell_blank(blank)
    yield f"wrote {out}"


def _encoded(
    paths: Sequence[str], folder: Path, encoder: encoder_protocol.Encoder, threads: int, blank: set[str]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield paths and their features, in order, some at a time; the paths of blank images are added to `blank`."""

    def seen(path: str, image: np.ndarray) -> None:
        if is_flat(image):
            blank.add(path)

    rows = (ImageRow(path, _read_bytes(folder / path), None, str(folder / path)) for path in paths)
    return encode.encode_rows(rows, encoder, where=str(folder), total=len(paths), threads=threads, seen=seen)


def _tell_blank(blank: Collection[str]) -> Iterator[str]:
    """Yield a line that names blank images. Their rows stay: the files of the benchmark refer to rows by number."""
    if not blank:
        return
    shown = ", ".join(sorted(blank)[:BLANK_SHOWN])
    more = f" and {len(blank) - BLANK_SHOWN} more" if len(blank) > BLANK_SHOWN else ""
    yield f"blank, one colour all over, so that their features say nothing: {len(blank)} images: {shown}{more}"


def _read_bytes(path: Path) -> bytes:
    try:
        return relative_paths.read_file(path, path.name)
    except InputError as error:  # a broken link, missing permission, a file removed meanwhile
        raise InputError(f"{path}: cannot be read ({error}), expected an image") from None


def _check_reads_images(encoder: encoder_protocol.Encoder, where: str) -> None:
    """Raise InputError for an encoder that reads text; `where` names the input, which has only images."""
    if encoder_protocol.input_kind(encoder) != "images":
        raise InputError(
            f"--encoder: {encoder.identity['family']!r} reads text, and {where} has images alone; expected an"
            " encoder of images"
        )


def _check_files_exist(testcase: Path, images: Path, entries: Sequence[Description]) -> None:
    for number, entry in enumerate(entries):
        groups: Mapping[str, list[str]] = {"exemplar": entry.exemplar} | entry.synth
        for group, paths in groups.items():
            for path in paths:
                where = f"{testcase}: entry {number}, {group}"
                _check_path(
                    path, images, where, "expected --images to be the folder that the paths start from"
                )


def _check_path(path: str, folder: Path, where: str, expected: str) -> None:
    """Raise InputError for a path that is no file below a folder, or a path that cannot be one."""
    try:
        relative_paths.check(path, folder)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if not os.path.isfile(folder / path):
        raise InputError(f"{where}: no file {folder / path}; {expected}")


def find_images(folder: Path) -> list[str]:
    """Return the paths of all images below a folder, recognised by suffix, sorted.

    Hidden files are left out, links to folders are not followed. Raises InputError where there are none.
    """
    if not folder.is_dir():
        raise InputError(f"--pool: {folder} is no folder, expected one with images below it")
    found = [
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    if not found:
        raise InputError(f"--pool: 0 images below {folder}; expected files {', '.join(sorted(SUFFIXES))}")
    for name in found:
        try:
            text_files.check_characters(name)
        except InputError as error:
            raise InputError(f"--pool: {folder}: {shown_path(name)}: {error}; rename the file") from None
    return sorted(found)


def read_list(path: Path, folder: Path) -> list[str]:
    """Read the paths of images below a folder from a text file, one per line; empty lines are skipped.

    Raises InputError, with the line, for a path that is absolute, leads out of the folder, is no file, or has the file
    of another line.
    """
    if not folder.is_dir():
        raise InputError(
            f"--pool: {folder} is no folder, expected the one that the paths of --list start from"
        )
    try:
        text = text_files.read(path, expected="list of images")
    except InputError as error:
        raise InputError(f"--list: {error}") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbers = [number for number, line in enumerate(lines, start=1) if line]
    found = [lines[number - 1] for number in numbers]
    if not found:
        raise InputError(f"--list: {path} names 0 images, expected one path per line")
    for number, name in zip(numbers, found, strict=True):
        expected = "expected --pool to be the folder that the paths start from"
        _check_path(name, folder, f"{path}: line {number}", expected)
    for later, earlier in relative_paths.same_files(pa.chunked_array([found]), folder).items():
        other = "" if found[later] == found[earlier] else f" as {shown_path(found[earlier])}"
        raise InputError(
            f"{path}: line {numbers[later]}: {shown_path(found[later])} is also in line {numbers[earlier]}{other},"
            " expected each image once"
        )
    return found
