"""`python -m attrib_core attribute IMAGE ...`: attribute images to training images with a finished run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError, cut, printable

if TYPE_CHECKING:
    import numpy as np

    from attrib_core.attribution.single_image.attribute import Searched
    from attrib_core.attribution.single_image.finished_run import Features

ENDINGS = (".parquet", ".csv")


def add(commands: Any) -> None:
    """Add `attribute` to the commands of the command line."""
    one = commands.add_parser(
        "attribute", help="find the training images that an image owes most to, with a finished run"
    )
    one.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="generated image: PNG, JPEG, ...")
    one.add_argument(
        "--run", dest="folder", type=Path, required=True, metavar="RUN",
        help="folder of a finished run, such as results/demo",
    )  # fmt: skip
    one.add_argument(
        "--kind",
        metavar="KIND",
        help="object or style: the kind of exemplars to search for; default: each kind of the run in turn",
    )
    one.add_argument(
        "--encoder", metavar="NAME", help="encoder of the run; default: the best on its validation sets"
    )
    one.add_argument(
        "--mapper",
        metavar="NAME",
        help="mapper of the run, or untuned; default: the best on its validation sets",
    )
    one.add_argument(
        "--top", type=int, default=10, metavar="N", help="candidates shown; default: %(default)s"
    )
    one.add_argument("--prompt", metavar="TEXT", help="prompt of the images, for encoders that read text")
    one.add_argument("--out", type=Path, metavar="F", help="also write the table: F.parquet or F.csv")
    one.set_defaults(run=attribute)


def attribute(arguments: argparse.Namespace) -> int:
    """Rank the pool of a run for each image, and print the influence of the most similar candidates."""
    from attrib_core.attribution.single_image import attribute as attribution
    from attrib_core.attribution.single_image import finished_run as runs
    from attrib_core.attribution.single_image import trust
    from attrib_core.report.sections.tables import write_csv
    from attrib_core.storage import tables

    out: Path | None = arguments.out
    if out is not None and out.suffix not in ENDINGS:
        raise InputError(f"--out: {out}, expected a name that ends in {' or '.join(ENDINGS)}")
    run = runs.open_run(arguments.folder)
    chosen = runs.choose_features(
        run, kind=arguments.kind, encoder=arguments.encoder, mapper=arguments.mapper
    )
    embedded: dict[str, np.ndarray] = {}
    written: list[dict[str, Any]] = []
    for features in chosen:
        if features.encoder not in embedded:
            encoder = run.encoder(features.encoder)
            embedded[features.encoder] = attribution.embed(arguments.images, encoder, prompt=arguments.prompt)
        rows, searched = attribution.attribute(
            run, features, embedded[features.encoder], arguments.images, top=arguments.top
        )
        for line in lines(features, searched, rows):
            print(line)
        print(f"{trust.sentence(run, features)}\n")
        written += rows
    if out is not None:
        if out.suffix == ".csv":
            write_csv(out, written)
        else:
            tables.write(out, "attributions", written)
        print(f"wrote {out}")
    return 0


def lines(features: Features, searched: Searched, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what was searched and the candidates of each image; `rows` are those of `attribute`."""
    from attrib_core.attribution.single_image.trust import percent

    yield (
        f"{features.kind}: encoder {features.encoder}, mapper {features.mapper}; searched"
        f" {searched.distractors + searched.exemplars} images of the pool: {searched.exemplars} exemplars and"
        f" {searched.distractors} distractors, not {searched.left_out} that are like an exemplar"
    )
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        if row["rank"] == 1:
            yield f"{row['image']}: none of these {percent(row['none'])}"
            yield "  rank  influence  similarity  image_id  caption  attribution  licence"
            listed = 0.0
        listed += row["influence"]
        name = printable(row["image_id"]) + (" (exemplar)" if row["is_exemplar"] else "")
        words = "  ".join(_short(row[column]) for column in ("caption", "attribution", "licence"))
        yield f"  {row['rank']:4d}  {percent(row['influence']):>9}  {row['similarity']:10.3f}  {name}  {words}"
        if following is None or following["rank"] == 1:
            rest = searched.distractors + searched.exemplars - row["rank"]
            yield f"  all {rest} others together {percent(max(0.0, 1.0 - row['none'] - listed))}"


def _short(text: str | None) -> str:
    """Return a text of the pool as the terminal shows it, in one line of at most 80 characters; "-" for none."""
    return cut(printable(" ".join((text or "-").split())))
