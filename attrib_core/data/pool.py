"""Stage `pool`: check, measure and hash the images among which attribution searches.

Rows are streamed from a source (`attrib_core.data.sources`). An image that all programs decode alike
(PNG, JPEG or WebP in RGB, no EXIF rotation) keeps its bytes. Any other (palette, transparency,
CMYK, gray, 16 bit, another format, rotated by EXIF) is converted to RGB by
`attrib_core.data.images` and stored as PNG, so that later stages only see RGB.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrib_core.common import families
from attrib_core.common.errors import InputError, printable, shown
from attrib_core.data.images import check_content, decode, to_png
from attrib_core.data.perceptual_hash import difference_hash
from attrib_core.runtime.progress import progress
from attrib_core.storage import tables, text_files

LOGGER = logging.getLogger(__name__)
MIN_SIDE = 32
ROWS_PER_WRITE = 256


def open_source(settings: Mapping[str, Any], *, stop: int, seed: int) -> Any:
    """Open the source of the config section `pool.source`; InputError where it has fewer than `stop` rows."""
    family, options = families.split(settings)
    source = families.load("sources", family, options, where="pool.source", seed=seed)
    if len(source) < stop:
        raise InputError(
            f"pool.images: {stop} or more requested, but source {family!r} has {len(source)} images"
        )
    return source


def source_state(settings: Mapping[str, Any], *, start: int, stop: int, seed: int) -> str:
    """Return a digest of the files that the source reads for some rows, for the params of a rule."""
    return str(_opened(json.dumps(dict(settings), sort_keys=True), seed).state(start, stop))


@functools.lru_cache(maxsize=1)
def _opened(settings: str, seed: int) -> Any:
    """Open the source once for all parts: a table of a million rows takes seconds to read."""
    return open_source(json.loads(settings), stop=0, seed=seed)


def part(
    settings: Mapping[str, Any], *, start: int, stop: int, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the source's rows `start` to `stop - 1`, checked as in `build`. `settings` is `pool.source`."""
    source = open_source(settings, stop=stop, seed=seed)
    yield from build(progress(source.rows(start, stop), total=stop - start, what="images"))


def build(
    rows: Iterable[Mapping[str, Any]], *, min_side: int = MIN_SIDE
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Check rows of a source one by one and yield ("pool", row) or ("rejects", row).

    Input rows have the columns of the table `pool` except width, height and perceptual_hash, which
    are added here. Rejected are images that are missing or cannot be decoded, images with a side
    below `min_side` pixels, images of one colour all over, repeated image_ids (within these rows; the
    exemplars stage finds ids that are in two parts), rows with a `reason` of the source's, and texts that
    no table can store.
    """
    seen: dict[str, str] = {}  # ids by what is printed of them
    for row in rows:
        image_id = printable(row["image_id"])
        try:
            _check_texts(row)
            if (other := seen.get(image_id)) is not None:
                also = f": its printed name is that of another file, {shown(other)}"
                raise InputError("duplicate id" + (also if other != row["image_id"] else ""))
            seen[image_id] = row["image_id"]
            checked = _checked(row, min_side)
        except InputError as error:
            yield "rejects", {"image_id": image_id, "reason": str(error)}
        else:
            yield "pool", checked


def save(
    rows: Iterable[tuple[str, dict[str, Any]]], *, pool_path: Path, rejects_path: Path
) -> dict[str, int]:
    """Write the rows to both tables as they arrive and return the number of rows of each."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    buffer: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    with tables.writer(pool_path, tables.schema("pool")) as pool_writer:
        for table, row in rows:
            counts[table] += 1
            if table == "rejects":
                rejected.append(row)
                reasons[row["reason"].split(":")[0]] += 1
                continue
            buffer.append(row)
            if len(buffer) == ROWS_PER_WRITE:
                pool_writer.write(buffer)
                buffer = []
        if buffer:
            pool_writer.write(buffer)
        tables.write(rejects_path, "rejects", rejected)
    for reason, count in sorted(reasons.items()):
        LOGGER.warning("%d images rejected: %s (all in %s)", count, reason, rejects_path)
    return {table: counts[table] for table in ("pool", "rejects")}


def _check_texts(row: Mapping[str, Any]) -> None:
    """Raise InputError for a row that the source rejects, and for a text with half of an emoji or NUL."""
    if "reason" in row:
        raise InputError(row["reason"])
    for name, value in row.items():
        if isinstance(value, str):
            try:
                text_files.check_characters(value)
            except InputError as error:
                raise InputError(f"text: {name}: {error}") from None


def _checked(row: Mapping[str, Any], min_side: int) -> dict[str, Any]:
    data = row["image"]["bytes"]
    if data is None:
        raise InputError(f"unreadable: no file {row['image']['path']}")
    image, transparent, plain = decode(data, where="undecodable")
    height, width = image.shape[:2]
    if min(width, height) < min_side:
        raise InputError(f"too small: {width} x {height} pixels, at least {min_side} are needed")
    check_content(image, where="blank", transparent=transparent)
    return {
        **row,
        "image": {"bytes": data if plain else to_png(image), "path": row["image"]["path"]},
        "width": width,
        "height": height,
        "perceptual_hash": difference_hash(image),
    }
