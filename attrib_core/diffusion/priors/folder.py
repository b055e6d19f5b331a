"""Prior images of the user's: a folder with words, read as the source `folder` reads it.

Which of them are for a class, `choose` says:
`subfolder`, those below the folder of its noun's name ("images/dog/..." for "dog");
`caption`, those whose caption names the noun, in whole words and either case of letters, or whose
    `category` in the table is the noun;
`all`, every image for every class.
Of more than `images` some are taken by key, so that those taken do not hang on names or order.
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
from attrib_core.data.images import to_rgb
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs, PriorSet, row, wrong

READS: tuple[str, ...] = ()
Choice = Literal["subfolder", "caption", "all"]


@dataclass(frozen=True)
class Folder:
    """The options of `load`, and the source that reads the folder."""

    source: Any
    where: str
    images: int
    choose: Choice
    seed: int

    def plan(self, classes: Sequence[PriorClass], inputs: PriorInputs) -> list[PriorSet]:
        """The images of each class by name and caption; those taken are read once for their digests."""
        known = [
            (number, entry["image_id"], entry["caption"], entry["category"])
            for number, entry in enumerate(self.source.rows_without_images(0, len(self.source)))
        ]
        planned = []
        for one in classes:
            fitting = [entry for entry in known if self._fits(one, *entry[1:])]
            if len(fitting) < self.images:
                raise wrong(
                    "images",
                    f"{self.images} asked, but {self.where} has {len(fitting)} images for class"
                    f" {one.category!r} by {self._rule(one)}; add images or ask for fewer",
                )
            fitting.sort(key=lambda entry: hashing.digest("prior", self.seed, one.category, entry[1]))
            taken = sorted(fitting[: self.images])
            planned.append(
                PriorSet(
                    one.kind,
                    one.category,
                    rows=[
                        row(one, number, caption, path=name)
                        for number, (_, name, caption, _) in enumerate(taken)
                    ],
                    content=[hashlib.sha256(self._read(number)).hexdigest() for number, *_ in taken],
                    places=[number for number, *_ in taken],
                )
            )
        return planned

    def _fits(self, one: PriorClass, name: str, caption: str, category: str | None) -> bool:
        if self.choose == "subfolder":
            return name.startswith(f"{one.category}/")
        if self.choose == "caption":
            found = re.search(rf"(?<!\w){re.escape(one.category)}(?!\w)", caption, re.IGNORECASE)
            return category == one.category or found is not None
        return True

    def _rule(self, one: PriorClass) -> str:
        return {
            "subfolder": f"subfolder ({one.category}/)",
            "caption": "caption (the noun in its words, or as its category)",
            "all": "all",
        }[self.choose]

    def encoded_images(self, sets: Sequence[PriorSet], inputs: PriorInputs) -> Iterator[bytes]:
        """The files as they are, each after a look that it can be decoded."""
        for one in sets:
            for number, planned in zip(one.places, one.rows, strict=True):
                data = self._read(number)
                to_rgb(data, where=f"{self.where}: {planned['image']['path']}")
                yield data

    def _read(self, number: int) -> bytes:
        (entry,) = self.source.rows(number, number + 1)
        data: bytes | None = entry["image"]["bytes"]
        if data is None:
            raise InputError(f"{self.where}: {entry['image_id']}: no file that can be read")
        return data


def load(
    *,
    path: Annotated[str, Field(min_length=1, description="folder of images, with folders below it")],
    metadata: Annotated[
        str | None, Field(description="table that says what they show, as of `sources/folder`")
    ] = None,
    images: Annotated[int, Field(ge=1, description="prior images of each class")] = 16,
    choose: Annotated[
        Choice,
        Field(description="images of a class: below the folder of its noun; with the noun in caption; all"),
    ] = "caption",
    seed: int,
) -> Folder:
    """Images from a folder of yours, with their captions as prompts."""
    return Folder(_source(path, metadata), f"folder {path!r}", images, choose, seed)


def checked(**options: Any) -> dict[str, Any]:
    """The options once more, after a look into the folder."""
    _source(options["path"], options["metadata"])
    return options


def others(**_options: Any) -> list[str]:
    """The source that reads the folder."""
    return ["sources/folder"]


def state(**options: Any) -> str:
    """Digest of what is in the folder: words, and sizes and times of files, for a rule's params."""
    source = _source(options["path"], options["metadata"])
    return str(source.state(0, len(source)))


def _source(path: str, metadata: str | None) -> Any:
    """The source `folder`; a prior image is not shown, so its licence is not asked for."""
    given = {"path": path, "metadata": metadata, "licence": "unknown", "attribution": "unknown"}
    try:
        return families.load("sources", "folder", given)
    except InputError as error:
        option, said = re.fullmatch(r"pool\.source\.(\w+): (.*)", str(error)), str(error)
        if option:
            raise wrong(option[1], option[2]) from None
        raise wrong("metadata" if metadata else "path", said.removeprefix("pool.source: ")) from None
