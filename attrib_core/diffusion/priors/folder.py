"""Prior images from the user's own folder, with captions, read by the source `folder`.

`choose` selects the images of a class:
`subfolder`, those below the folder of the class noun ("images/dog/..." for "dog");
`caption`, those whose caption has the noun, as a whole word in any case, or whose `category` in the table is the noun;
`all`, every image for every class.
Of more than `images`, some are selected by a hash of seed, class and name, independent of the order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.data.images import check_content, decode
from attrib_core.diffusion.customization.prior_protocol import (
    PriorClass,
    PriorInputs,
    PriorSet,
    option_error,
    prior_row,
)

READS: tuple[str, ...] = ()
Choice = Literal["subfolder", "caption", "all"]


@dataclass(frozen=True)
class Folder:
    """A source of prior images in a folder, with the options of `load` and the source that reads the folder."""

    source: Any
    where: str
    images: int
    choose: Choice
    seed: int

    def plan(self, classes: Sequence[PriorClass], inputs: PriorInputs) -> list[PriorSet]:
        """Select the images of each class by name and caption; these are read once for their digests."""
        known = []
        for number, entry in enumerate(self.source.rows_without_images(0, len(self.source))):
            if "reason" in entry:
                raise InputError(f"{self.where}: {entry['image_id']}: {entry['reason']}")
            known.append((number, entry["image_id"], entry["caption"], entry["category"]))
        planned = []
        for one in classes:
            matching = [entry for entry in known if self._matches(one, *entry[1:])]
            if len(matching) < self.images:
                raise option_error(
                    "images",
                    f"{self.images} asked, but {self.where} has {len(matching)} images for class"
                    f" {one.category!r} by {self._criterion(one)}; add images or ask for fewer",
                )
            matching.sort(key=lambda entry: hashing.digest("prior", self.seed, one.category, entry[1]))
            chosen = sorted(matching[: self.images])
            planned.append(
                PriorSet(
                    one.kind,
                    one.category,
                    rows=[
                        prior_row(one, number, caption, path=name)
                        for number, (_, name, caption, _) in enumerate(chosen)
                    ],
                    content=[hashlib.sha256(self._read(number)).hexdigest() for number, *_ in chosen],
                    locations=[number for number, *_ in chosen],
                )
            )
        return planned

    def _matches(self, one: PriorClass, name: str, caption: str, category: str | None) -> bool:
        if self.choose == "subfolder":
            return name.startswith(f"{one.category}/")
        if self.choose == "caption":
            found = re.search(rf"(?<!\w){re.escape(one.category)}(?!\w)", caption, re.IGNORECASE)
            return category == one.category or found is not None
        return True

    def _criterion(self, one: PriorClass) -> str:
        return {
            "subfolder": f"subfolder ({one.category}/)",
            "caption": "caption (the noun as a word, or as the category)",
            "all": "all",
        }[self.choose]

    def encoded_images(self, sets: Sequence[PriorSet], inputs: PriorInputs) -> Iterator[bytes]:
        """Yield the files unchanged, each after a check that it can be decoded and is not blank."""
        for one in sets:
            for number, planned in zip(one.locations, one.rows, strict=True):
                data = self._read(number)
                where = f"{self.where}: {planned['image']['path']}"
                image, transparent, _ = decode(data, where=where)
                check_content(image, where=f"{where}: blank", transparent=transparent)
                yield data

    def _read(self, number: int) -> bytes:
        (entry,) = self.source.rows(number, number + 1)
        data: bytes | None = entry["image"]["bytes"]
        if data is None:
            raise InputError(f"{self.where}: {entry['image_id']}: {entry['reason']}")
        return data


def load(
    *,
    path: Annotated[str, Field(min_length=1, description="folder of images, with folders below it")],
    metadata: Annotated[
        str | None, Field(description="table that describes them, as in `sources/folder`")
    ] = None,
    images: Annotated[int, Field(ge=1, description="prior images of each class")] = 16,
    choose: Annotated[
        Choice,
        Field(description="images of a class: below the folder of its noun; with the noun in caption; all"),
    ] = "caption",
    seed: int,
) -> Folder:
    """Images from your own folder, with their captions as prompts."""
    return Folder(_source(path, metadata), f"folder {path!r}", images, choose, seed)


def checked(**options: Any) -> dict[str, Any]:
    """Check the options against the folder, in whose table no row may be wrong, and return them."""
    source = _source(options["path"], options["metadata"])
    for problem in source.problems.values():
        raise option_error("metadata" if options["metadata"] else "path", problem)
    return options


def others(**_options: Any) -> list[str]:
    """Name the source that reads the folder, whose code counts too."""
    return ["sources/folder"]


def state(**options: Any) -> str:
    """Digest the folder's contents (captions, and sizes and times of files) for a rule's params."""
    source = _source(options["path"], options["metadata"])
    return str(source.state(0, len(source)))


def _source(path: str, metadata: str | None) -> Any:
    """Load the source `folder`; prior images are not shown, so their licence is not asked for."""
    given = {"path": path, "metadata": metadata, "licence": "unknown", "attribution": "unknown"}
    try:
        return families.load("sources", "folder", given)
    except InputError as error:
        if match := re.fullmatch(r"pool\.source\.(\w+): (.*)", str(error)):
            raise option_error(match[1], match[2]) from None
        message = str(error).removeprefix("pool.source: ")
        raise option_error("metadata" if metadata else "path", message) from None
