"""Source `folder`: the images below a local folder, with an optional table of captions and labels.

Without a table, every image file below the folder is a row, ordered by relative path. With a
table (CSV, or JSON lines if its name ends in ".jsonl"; UTF-8), its lines are the rows, in their
order. Its column `file` is the path relative to the folder; the columns caption, subject,
category, style, licence and attribution are optional, and an empty cell means unknown.
`file_name` and `text`, the column names of Hugging Face's image folders, mean `file` and `caption`;
other columns are not read.

An image without a caption in the table gets that of the text file next to it ("owl.txt" next to
"owl.png"), else its file name ("red-apple_2.png": "red apple 2"). A row that is wrong, or whose file
is missing, broken, or that of an earlier row, becomes a reject of the pool, with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, cut, printable, shown_path
from attrib_core.data import metadata_table
from attrib_core.storage import relative_paths, text_files

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
ROWS_PER_BATCH = 1 << 13


@dataclass(frozen=True)
class Folder:
    """The rows of a folder; the table is in memory, images are read on demand."""

    path: Path
    table: pa.Table
    """One row per image, with `file` and further COLUMNS; "" is unknown. A million rows take 100 MB."""
    defaults: dict[str, str]
    problems: dict[int, str] = field(default_factory=dict)
    """Why rows become rejects, by number, as far as that is known without opening images."""
    ignored: tuple[str, ...] = ()
    """Columns of the table that are not read."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def _lines(self, start: int, stop: int) -> Iterator[dict[str, str]]:
        """Yield rows of the table, converted to Python strings a few at a time."""
        for first in range(start, stop, ROWS_PER_BATCH):
            yield from self.table.slice(first, min(ROWS_PER_BATCH, stop - first)).to_pylist()

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield pool rows `start` to `stop - 1`; one that becomes a reject has a `reason`, and bytes None."""
        for row in self.rows_without_images(start, stop):
            name, content, problem = row["image_id"], None, {}
            if "reason" not in row:
                try:
                    content = relative_paths.read_file(self.path / name, name)
                except InputError as error:
                    problem = {"reason": f"unreadable: {error}"}
            yield row | {"image": {"bytes": content, "path": name}} | problem

    def rows_without_images(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield the same rows without their images, which are not read."""
        for number, line in enumerate(self._lines(start, stop), start=start):
            file = self.path / line["file"]
            caption, problem = line.get("caption"), self.problems.get(number)
            if not caption and problem is None:
                try:
                    caption = _caption_file(file)
                except InputError as error:
                    problem = f"caption: {error}"
            row = {
                "image_id": line["file"],
                "caption": caption or _caption_from_name(file),
                "subject": line.get("subject") or None,
                "category": line.get("category") or None,
                "style": line.get("style") or None,
                "licence": line.get("licence") or self.defaults["licence"],
                "attribution": line.get("attribution") or self.defaults["attribution"],
            }
            yield row if problem is None else row | {"reason": problem}

    def labels(self, start: int, stop: int) -> Iterator[dict[str, str | None]]:
        """Yield image_id, subject, category and style of the rows; None where the table has none, and in rejects."""
        for number, line in enumerate(self._lines(start, stop), start=start):
            known = {} if number in self.problems else line
            labels = {name: known.get(name) or None for name in ("subject", "category", "style")}
            yield {"image_id": line["file"], **labels}

    def warnings(self) -> list[str]:
        """Return what is odd in the table: rows that become rejects, columns that are not read."""
        found = []
        if self.problems:
            first = cut(next(iter(self.problems.values())), 200)
            found.append(f"{len(self.problems)} of {len(self)} rows become rejects, the first: {first}")
        if self.ignored:
            found.append(f"columns of the table that are not read: {', '.join(self.ignored)}")
        return found

    def mean_bytes(self, stop: int) -> float | None:
        """Return the mean size of image files, of a sample spaced evenly below `stop`; None without a file."""
        sizes = []
        names = self.table["file"].slice(0, stop)
        for number in range(0, len(names), max(1, len(names) // 1000)):
            try:
                sizes.append((self.path / names[number].as_py()).stat().st_size)
            except OSError:
                continue
        return sum(sizes) / len(sizes) if sizes else None

    def state(self, start: int, stop: int) -> str:
        """Return a digest of what the rows read: the table, and size and modification time of the
        image files and of the text files next to them."""
        columns = self.table.slice(start, max(0, stop - start)).to_pydict()
        files, stamps = columns["file"], []
        for name, caption in zip(files, columns.get("caption", [""] * len(files)), strict=True):
            file = os.path.join(self.path, name)  # a Path would cost more than reading the status
            text = [] if caption else _stamp(f"{os.path.splitext(file)[0]}.txt")
            stamps.append([_stamp(file), text])
        wrong = {number: why for number, why in self.problems.items() if start <= number < stop}
        return hashing.digest(columns, stamps, *([sorted(wrong.items())] if wrong else []))


def load(
    *,
    path: Annotated[str, Field(min_length=1, description="folder of images, with folders below it")],
    metadata: Annotated[
        str | None, Field(description="table of captions and labels: CSV or JSON lines")
    ] = None,
    licence: Annotated[str | None, Field(description="licence of images without one in the table")] = None,
    attribution: Annotated[
        str | None, Field(description="attribution of images without one in the table")
    ] = None,
) -> Folder:
    """Read and check the table, and return the source.

    Raises InputError for a missing folder or table, a malformed table, an image without licence or
    attribution, and for no image at all.
    """
    folder = Path(path)
    if not os.path.isdir(folder):  # False, too, for a name that no folder can have
        raise InputError(f"pool.source.path: {shown_path(path)} is no folder")
    if metadata is None:
        table, problems = _list_images(folder)
        ignored: tuple[str, ...] = ()
    else:
        read = metadata_table.read(Path(metadata), folder)
        table, problems, ignored = read.rows, read.problems, read.ignored
    if not table.num_rows:
        where = f"folder {path!r}" if metadata is None else f"table {metadata!r}"
        raise InputError(f"pool.source: 0 images in {where}; expected files {', '.join(sorted(SUFFIXES))}")
    defaults = {"licence": licence or "", "attribution": attribution or ""}
    for column, default in defaults.items():
        if default:
            continue
        lacks = np.ones(len(table), bool)
        if column in table.column_names:
            lacks = pc.equal(table[column], "").to_numpy()
        lacks[list(problems)] = False
        if lacks.any():
            first = table["file"][int(lacks.argmax())].as_py()
            raise InputError(
                f"pool.source.{column}: None, but the table has none for {int(lacks.sum())} images"
                f" ({shown_path(first)}); set it here, or in the column {column!r} of the table"
            )
    return Folder(folder, table, defaults, problems, ignored)


def _list_images(folder: Path) -> tuple[pa.Table, dict[int, str]]:
    """List the images below a folder; names that are not UTF-8 are escaped, and problems."""
    found: list[str] = []
    for parent, _, files in os.walk(folder):
        base = Path(parent).relative_to(folder)
        found += [
            (base / name).as_posix()
            for name in files
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    found.sort()
    problems = {}
    for number, name in enumerate(found):
        try:
            text_files.check_characters(name)
        except InputError as error:
            found[number] = printable(name)
            problems[number] = f"path: '{found[number]}': {error}"
    return pa.table({"file": pa.array(found, pa.string())}), problems


def _stamp(file: str) -> list[int]:
    """Return size and modification time of a file; [] if it cannot be read."""
    try:
        status = os.stat(file)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _caption_file(file: Path) -> str:
    """Return the text of the ".txt" file next to an image, in one line; "" where there is none.

    Raises InputError, with the reason alone, for one that is no text, or no file but a folder, pipe or device.
    """
    text = file.with_suffix(".txt")
    if not os.path.exists(text):
        return ""
    return " ".join(text_files.decode(relative_paths.read_file(text, text.name), text.name).split())


def _caption_from_name(file: Path) -> str:
    return re.sub(r"[\s_-]+", " ", file.stem).strip() or file.name
