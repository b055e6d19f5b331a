"""Features of a pool in the released layout, made from a folder of images by an encoder of this project.

Features go to the disk as they come, so that a pool of any size is made in the memory of some batches, its
paths, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrib_core.abc_benchmark.embed_cases import check_reads
from attrib_core.abc_benchmark.export_run import write_pool
from attrib_core.common.errors import InputError
from attrib_core.data.sources.folder import SUFFIXES
from attrib_core.features.embedding import encoder_protocol, encoding
from attrib_core.features.embedding.rows import Row


def embed(
    folder: Path,
    encoder: encoder_protocol.Encoder,
    out: Path,
    *,
    listed: Path | None = None,
    threads: int = -1,
) -> Iterator[str]:
    """Write `feats` (images, dim) float32 and `paths` of a folder's images; yields a line before and after.

    The rows are those of `images`, or with `listed` those of `read_list`; a path is relative to the folder,
    with "/" between its parts. Raises InputError for a missing or broken image, named, and for an encoder
    that reads words; writes nothing then.
    """
    check_reads(encoder, str(folder))
    paths = images(folder) if listed is None else read_list(listed, folder)
    yield f"{len(paths)} images, {encoder.dim} features"
    rows = (Row(path, _bytes(folder / path), None, str(folder / path)) for path in paths)
    write_pool(
        encoding.encoded(rows, encoder, where=str(folder), total=len(paths), threads=threads),
        encoder.dim,
        out,
    )
    yield f"wrote {out}"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # a link to nothing, an image that others may read, one that went away
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected an image") from None


def images(folder: Path) -> list[str]:
    """All images below a folder, told by the ends of their names, in the order of their paths.

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
    return sorted(found)


def read_list(path: Path, folder: Path) -> Sequence[str]:
    """Paths below a folder as a text file has them, one a line, in its order; empty lines count for nothing.

    Raises InputError, with the line, for a path that is not relative, that stands there twice, or is no file.
    """
    if not folder.is_dir():
        raise InputError(
            f"--pool: {folder} is no folder, expected the one that the paths of --list start from"
        )
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--list: {path} cannot be read as UTF-8 text: {error}") from None
    found: dict[str, int] = {}
    for number, line in enumerate((line.rstrip("\r") for line in lines), start=1):
        if not line:
            continue
        if Path(line).is_absolute():
            raise InputError(
                f"{path}: line {number}: {line!r} is absolute, expected a path relative to --pool"
            )
        if line in found:
            raise InputError(
                f"{path}: line {number}: {line!r} stands in line {found[line]} too, expected each image once"
            )
        if not (folder / line).is_file():
            raise InputError(
                f"{path}: line {number}: no file {folder / line}; expected --pool to be the folder that the"
                " paths start from"
            )
        found[line] = number
    if not found:
        raise InputError(f"--list: {path} names 0 images, expected a path a line")
    return list(found)
