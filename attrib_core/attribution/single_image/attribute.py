"""Whose work is in an image: candidates of a finished run's pool, ranked and calibrated for one image.

Nothing is computed here that the workflow does not compute: the encoder and the heads are the run's, the
pass over the pool is `ranking.rank_group`, the calibrator is the one that the run fitted, and influence comes
from `calibration.soft_scores`. What differs from a query of the run is what is searched. A query of the run
competes with its own exemplars and all distractors; here nobody knows the exemplars, so those of all sets
stand among the distractors. What ranking leaves out beside them (near duplicates of an exemplar, other images
of its subject or in its style) is left out here as well: the calibrators have never seen it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attrib_core.attribution.calibration import calibrate
from attrib_core.attribution.calibration.similarities import from_candidates
from attrib_core.attribution.ranking import embedding_stream, rank
from attrib_core.attribution.single_image.finished_run import Features, Run
from attrib_core.common.errors import InputError
from attrib_core.features.embedding import encoder_protocol, encoding
from attrib_core.features.embedding.rows import Row, plain
from attrib_core.storage import tables

CREDIT = ("image_id", "caption", "attribution", "licence")
QUERY_BLOCK, POOL_BLOCK, QUERY_GROUP = 64, 8192, 512
BATCH = 1024  # rows of the pool whose credit is looked at together


class Searched(NamedTuple):
    """What the candidates are: distractors and exemplars of the run, and rows of the pool that are neither."""

    distractors: int
    exemplars: int
    left_out: int


def embed(
    paths: Sequence[Path], encoder: encoder_protocol.Encoder, *, prompt: str | None = None
) -> np.ndarray:
    """Features of image files, (images, dim) float32, as the run embeds a synthesized image with its prompt.

    Raises InputError for a file that is none or no image, and for an encoder that reads words without a prompt.
    """
    reads = encoder_protocol.reads(encoder)
    if reads != "images" and prompt is None:
        what = "words alone" if reads == "words" else "words beside the image"
        raise InputError(f"--prompt: the encoder reads {what}; say what the image was generated from")
    words = None if prompt is None or reads == "images" else plain(prompt)

    def rows() -> Iterator[Row]:
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: {error.strerror}; expected the file of an image") from None
            yield Row(str(path), data, words, str(path))

    found = [features for _, features in encoding.encoded(rows(), encoder, where="images")]
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
    """Rows of the table `candidates` for images, some hundred at a time; the pool streams past once for these.

    embeddings  (images, dim) float32 of the features' encoder, not mapped
    names       of the images, each once
    without     image_id of the rows of the pool that are not searched
    """
    heads = run.heads(features)
    unit = heads.synth(embeddings, ids=names)
    left_out = pa.array(sorted(without), pa.string())
    labels = rank.Labels(features.encoder, features.mapper, {})
    nobody = rank.ExemplarSet([], np.empty((0, unit.shape[1])))
    for start in range(0, len(names), query_group):
        group = embedding_stream.EmbeddingBlock(
            list(names[start : start + query_group]), unit[start : start + query_group]
        )
        yield rank.rank_group(
            group,
            [nobody] * len(group.ids),
            embedding_stream.read_blocks(
                run.pool(features.encoder), heads.real, rows=pool_block, without=left_out
            ),
            labels=labels,
            distractors=0,  # stands in the rows of exemplars alone, of which there are none
            top_k=run.top_k(features),
            bins=run.bins(features),
            query_block=QUERY_BLOCK,
        ).candidates


def shares(
    run: Run,
    features: Features,
    found: pa.Table,
    *,
    top: int,
) -> pa.Table:
    """The `top` most similar candidates of each image as rows of the table `soft_scores`, by the run's calibrator.

    `is_exemplar` is false everywhere: which exemplars are an image's own is what is asked.
    """
    evidence = from_candidates(found, [features.kind] * len(found))
    return calibrate.soft_scores(
        evidence, run.calibrator(features), shown=top, encoder=features.encoder, mapper=features.mapper
    )


def attribute(
    run: Run, features: Features, embeddings: np.ndarray, paths: Sequence[Path], *, top: int = 10
) -> tuple[list[dict[str, Any]], Searched]:
    """Rows of the table `attributions` for images with these embeddings, and what was searched.

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
    credits = credit(run, {row["candidate_id"] for row in rows})
    result = [
        {
            "image": str(paths[int(row["query_id"])]),
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


def credit(run: Run, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """Caption, attribution and licence of rows of the pool by image_id; the images are not read."""
    names = pa.array(sorted(wanted), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for batch in tables.iterate(run.images(), CREDIT, BATCH):
        for row in batch.filter(pc.is_in(batch.column("image_id"), value_set=names)).to_pylist():
            found[row.pop("image_id")] = row
    if missing := set(wanted) - set(found):
        raise InputError(f"{run.folder}/pool: no row {min(missing)!r}, which has an embedding")
    return found
