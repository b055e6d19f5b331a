"""Attribute single images to the pool of a finished run.

Encoder, heads and calibrator are those of the run, and so are the functions: `ranking.rank.rank_group` ranks
the pool and `calibration.soft_scores` computes influence. Only the candidates differ. A query of the run is
ranked with its own exemplars and all distractors; the exemplars of another image are unknown, so the exemplars
of all sets are among the distractors. The other rows that ranking leaves out (near duplicates of an exemplar,
other images of its subject or in its style) are left out here as well: the calibrators have never seen them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.attribution.calibration.similarities import from_candidates
from attrib_core.attribution.calibration.soft_scores import soft_scores
from attrib_core.attribution.ranking import embedding_stream, rank
from attrib_core.attribution.single_image.finished_run import Features, Run
from attrib_core.common.errors import InputError, printable
from attrib_core.data.images import check_content, decode
from attrib_core.features.embedding import encode, encoder_protocol
from attrib_core.features.embedding.image_rows import ImageRow, without_modifier_token
from attrib_core.storage import tables, text_files

CREDIT = ("image_id", "caption", "attribution", "licence")
QUERY_BLOCK, POOL_BLOCK, QUERY_GROUP = 64, 8192, 512
BATCH = 1024  # rows of the pool that `read_credits` reads at once


class Searched(NamedTuple):
    """Numbers of candidates, distractors and exemplars of the run, and of rows of the pool that are left out."""

    distractors: int
    exemplars: int
    left_out: int


def embed(
    paths: Sequence[Path], encoder: encoder_protocol.Encoder, *, prompt: str | None = None
) -> np.ndarray:
    """Embed image files, (images, dim) float32, as the run embeds a synthesized image with its prompt.

    Raises InputError for a file that is missing, no image or blank (one colour all over), and for an encoder that
    reads text without a prompt.
    """
    reads = encoder_protocol.input_kind(encoder)
    if reads != "images" and prompt is None:
        what = "text alone" if reads == "text" else "text with the image"
        raise InputError(f"--prompt: the encoder reads {what}; say what the image was generated from")
    try:
        text_files.check_characters(prompt or "")
    except InputError as error:
        raise InputError(f"--prompt: {error}") from None
    text = None if prompt is None or reads == "images" else without_modifier_token(prompt)

    def rows() -> Iterator[ImageRow]:
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: {error.strerror}; expected the file of an image") from None
            if reads != "text":
                image, transparent, _ = decode(data, where=str(path))
                check_content(image, where=f"{path}: blank", transparent=transparent)
            yield ImageRow(str(path), data, text, str(path))

    found = [features for _, features in encode.encode_rows(rows(), encoder, where="images")]
    return np.concatenate(found)


def candidates(
    run: Run,
    features: Features,
    embeddings: np.ndarray,
    *,
    names: Sequence[str],
    without: Collection[str],
    query_group: int = QUERY_GROUP,
    pool_block: int = POOL_BLOCK,
) -> Iterator[pa.Table]:
    """Yield rows of the table `candidates` for `query_group` images at a time; the pool is read once for each group.

    embeddings  (images, dim) float32, not mapped
    names       of the images, distinct
    without     image_id of the rows of the pool that are not searched
    """
    heads = run.heads(features)
    unit = heads.synth(embeddings, ids=names)
    left_out = pa.array(sorted(without), pa.string())
    labels = rank.Labels(features.encoder, features.mapper, {})
    no_exemplars = rank.ExemplarSet([], np.empty((0, unit.shape[1])))
    for start in range(0, len(names), query_group):
        group = embedding_stream.EmbeddingBlock(
            list(names[start : start + query_group]), unit[start : start + query_group]
        )
        yield rank.rank_group(
            group,
            [no_exemplars] * len(group.ids),
            embedding_stream.read_blocks(
                run.pool(features.encoder), heads.real, rows=pool_block, without=left_out
            ),
            labels=labels,
            distractors=0,  # only in rows of exemplars, of which there are none
            top_k=run.top_k(features),
            bins=run.bins(features),
            query_block=QUERY_BLOCK,
        ).candidates


def shares(run: Run, features: Features, table: pa.Table, *, top: int) -> pa.Table:
    """Calibrate a table `candidates`: the `top` most similar of each image as rows of the table `soft_scores`.

    `is_exemplar` is false everywhere, since the own exemplars of an image are unknown.
    """
    batch = from_candidates(table, [features.kind] * len(table))
    return soft_scores(
        batch, run.calibrator(features), shown=top, encoder=features.encoder, mapper=features.mapper
    )


def attribute(
    run: Run, features: Features, embeddings: np.ndarray, paths: Sequence[Path], *, top: int = 10
) -> tuple[list[dict[str, Any]], Searched]:
    """Compute the rows of the table `attributions` for images with these embeddings, and what was searched.

    Raises InputError where `top` is more than the run keeps by name.
    """
    most = run.top_k(features)
    if not 1 <= top <= most:
        raise InputError(f"--top: {top}, expected 1 to {most}, which the run keeps by name (ranking.top_k)")
    exemplars, excluded = run.exemplar_rows(), run.excluded_rows()
    names = [str(number) for number in range(len(paths))]
    rows: list[dict[str, Any]] = []
    total = 0
    for table in candidates(run, features, embeddings, names=names, without=excluded - exemplars):
        total = len(table["similarities"][0]) + int(pc.sum(table["histogram"][0].values).as_py())
        rows += shares(run, features, table, top=top).to_pylist()
    credits = read_credits(run, {row["candidate_id"] for row in rows})
    result = [
        {
            "image": printable(str(paths[int(row["query_id"])])),
            "kind": features.kind,
            "encoder": features.encoder,
            "mapper": features.mapper,
            "rank": row["rank"],
            "image_id": row["candidate_id"],
            "is_exemplar": row["candidate_id"] in exemplars,
            "similarity": row["similarity"],
            "influence": row["influence"],
            "none": row["none"],
            **credits[row["candidate_id"]],
        }
        for row in sorted(rows, key=lambda row: (int(row["query_id"]), row["rank"]))
    ]
    return result, Searched(total - len(exemplars), len(exemplars), len(excluded - exemplars))


def read_credits(run: Run, image_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Read caption, attribution and licence of rows of the pool by image_id."""
    names = pa.array(sorted(image_ids), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for batch in tables.iterate(run.images(), CREDIT, BATCH):
        for row in batch.filter(pc.is_in(batch.column("image_id"), value_set=names)).to_pylist():
            found[row.pop("image_id")] = row
    if missing := set(image_ids) - set(found):
        raise InputError(f"{run.folder}/pool: no row {min(missing)!r}, which has an embedding")
    return found
