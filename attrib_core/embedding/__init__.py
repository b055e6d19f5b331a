"""Embeddings of pictures, of their words or of both: a part of a table of pictures in, a part of embeddings out.

Streamed: one picture is decoded at a time, or a few ahead where threads decode; an encoder holds one
batch, and at most one row group of embeddings waits to be written.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attrib_core import decoding, families, keys, tables
from attrib_core.embedding.rows import Row, opened, rows
from attrib_core.errors import InputError
from attrib_core.jobs import progress

CHUNK = 256
THREADS_BESIDE_A_GPU = 4
AHEAD = 4
READS = ("pictures", "words", "both")
_METADATA = b"encoder"
Item = TypeVar("Item")
Result = TypeVar("Result")


class Encoder(Protocol):
    """What a family of `encoders` gives: a feature function on pictures, on their words, or on both.

    `dim` is the number of features, `identity` what decides about them (family, options,
    checksum of the weights) as plain JSON values. The bits of an input's features do not
    depend on which inputs are encoded with it.

    An encoder may have `reads`, one of READS: it is then given texts for "words", and pairs of a picture
    and a text for "both". Without it, it is given pictures.

    An encoder may split its work: `encode(inputs)` is then `encode_prepared(map(prepare, inputs))`,
    and `prepare`, of one input, is run by the threads that decode. It may say its `batch`.
    """

    dim: int
    identity: dict[str, Any]

    def encode(self, inputs: Iterable[Any]) -> np.ndarray:
        """What it reads, taken lazily, to (inputs, dim) float32; a picture is (height, width, 3) uint8."""
        ...


def load(section: Mapping[str, Any], where: str, *, device: str = "auto") -> Encoder:
    """The encoder of a config section, on a device; an InputError names the config key `where`."""
    family, options = families.split(section)
    try:
        encoder: Encoder = families.load("encoders", family, options, where=where, device=device)
    except InputError as error:
        raise error.under(where) from None
    return encoder


def reads(encoder: Encoder) -> str:
    """What an encoder is given, one of READS."""
    found: str = getattr(encoder, "reads", READS[0])
    if found not in READS:
        family = encoder.identity.get("family")
        raise InputError(f"encoder {family!r} reads {found!r}, expected one of {', '.join(READS)}")
    return found


def columns(encoder: Encoder, words: str | None, *, where: str) -> tuple[str | None, str | None]:
    """The columns of pictures and of words that an encoder reads; InputError where its words have no column."""
    read = reads(encoder)
    if read != "pictures" and words is None:
        raise InputError(
            f"{where}: encoder {encoder.identity.get('family')!r} reads words; name their column"
        )
    return None if read == "words" else "image", None if read == "pictures" else words


def embed(
    path: Path,
    *,
    ids: str,
    words: str | None = None,
    encoder: Encoder,
    threads: int = 0,
    chosen: Sequence[bool] | None = None,
) -> Iterator[pa.Table]:
    """Embeddings of the pictures in a Parquet file, in tables of at most about a row group.

    `ids` is the column that names a picture; the pictures are in the column `image`, and what is said of
    them in the column `words`. An encoder that reads words is given these without the modifier token: it
    stands for a model, and no tower knows it. A column that the encoder does not read is not opened. So many
    `threads` decode and prepare ahead of the encoder, AHEAD pictures each at most; with 0 it is
    done as pictures are needed; -1 means THREADS_BESIDE_A_GPU where the encoder computes on one, else
    none. The result does not depend on it. `chosen` says of each row whether it is wanted; None: all are.
    Raises InputError for a missing file or column, a picture without bytes or that cannot be decoded, a
    row without words (empty ones are words), and features that are not (pictures, dim) finite float32.
    """
    blocks: list[np.ndarray] = []
    names: list[str] = []
    image, words = columns(encoder, words, where=str(path))
    with opened(path, [column for column in (ids, image, words) if column]) as file:
        total = file.metadata.num_rows if chosen is None else sum(chosen)
        given = rows(file, path, ids=ids, image=image, words=words, step=CHUNK)
        given = given if chosen is None else compress(given, chosen)
        chunks = encoded(given, encoder, where=str(path), total=total, threads=threads)
        for found, features in chunks:
            names += found
            blocks.append(features)
            if len(names) >= tables.ROW_GROUP:
                yield tables.embedding_table(names, np.concatenate(blocks))
                blocks, names = [], []
    if names:
        yield tables.embedding_table(names, np.concatenate(blocks))


def encoded(
    given: Iterable[Row],
    encoder: Encoder,
    *,
    where: str,
    total: int | None = None,
    threads: int = 0,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and (n, dim) float32 of rows, some hundreds at a time; see `embed`. `where` names all of them."""
    read = reads(encoder)
    if threads < 0:
        threads = THREADS_BESIDE_A_GPU if getattr(encoder, "device", "cpu") != "cpu" else 0
    if read == "words":
        threads = 0  # nothing is decoded, and tokenizers are not for several threads
    prepare = getattr(encoder, "prepare", None)

    def ready(row: Row) -> tuple[str, Any]:
        taken = _taken(row, read)
        return row.name, prepare(taken) if prepare else taken

    pictures = progress(_ahead(given, ready, threads), total=total, what="pictures")
    while chunk := _encoded(pictures, encoder, where):
        yield chunk


def _taken(row: Row, read: str) -> Any:
    """What an encoder that reads this is given of a row."""
    picture = None if read == "words" or row.data is None else decoding.to_rgb(row.data, where=row.where)
    return {"pictures": picture, "words": row.words, "both": (picture, row.words)}[read]


def _ahead(items: Iterable[Item], work: Callable[[Item], Result], threads: int) -> Iterator[Result]:
    """`work` of each item, in their order; threads do it, a bounded number of items ahead."""
    if not threads:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decoding") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= threads * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def schema(encoder: Encoder) -> pa.Schema:
    """Schema of an encoder's embeddings, with its identity in the metadata of the file."""
    noted = json.dumps(encoder.identity, sort_keys=True).encode()
    return tables.embedding_schema(encoder.dim).with_metadata({_METADATA: noted})


def identity(path: Path) -> dict[str, Any]:
    """Which encoder made a part of embeddings."""
    noted = (pq.read_schema(path).metadata or {}).get(_METADATA, b"{}")
    return dict(json.loads(noted))


def _encoded(
    pictures: Iterator[tuple[str, Any]], encoder: Encoder, where: str
) -> tuple[list[str], np.ndarray] | None:
    names: list[str] = []
    if (first := next(pictures, None)) is None:
        return None  # no encoder is asked for the features of nothing
    batch = getattr(encoder, "batch", 1)
    size = batch * math.ceil(CHUNK / batch)  # whole batches: the last of a chunk is not filled up for nothing

    def taken() -> Iterator[Any]:
        for name, picture in chain([first], islice(pictures, size - 1)):
            names.append(name)
            yield picture

    encode = getattr(encoder, "encode_prepared", encoder.encode)
    features = encode(taken())
    family = encoder.identity.get("family")
    if features.shape != (len(names), encoder.dim) or features.dtype != np.float32:
        raise InputError(
            f"{where}: encoder {family!r} gave {features.dtype} of shape {features.shape}"
            f" for {len(names)} pictures, expected float32 of shape {(len(names), encoder.dim)}"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise InputError(
            f"{where}: encoder {family!r} gave numbers that are not finite for {names[bad[0]]!r};"
            " expected finite features (are its weights damaged?)"
        )
    return names, features


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and (rows, dim) float32 of a whole part of embeddings."""
    parts = list(stream([path]))
    if not parts:
        raise InputError(f"{path}: no embeddings in it; expected at least one row")
    return [name for names, _ in parts for name in names], np.concatenate([values for _, values in parts])


def stream(paths: Iterable[Path], *, rows: int = tables.ROW_GROUP) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and (n, dim) float32 of parts of embeddings, at most `rows` at a time.

    Raises InputError for a missing file or column and for a part whose dimension is not that
    of the parts before.
    """
    dim: int | None = None
    for path in paths:
        with opened(path, ["image_id", "embedding"]) as file:
            kind = file.schema_arrow.field("embedding").type
            if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
                raise InputError(f"{path}: column 'embedding' is {kind}, expected a fixed-size list of float")
            dim = dim or kind.list_size
            if kind.list_size != dim:
                raise InputError(
                    f"{path}: embeddings of {kind.list_size} dimensions, expected {dim} as before"
                )
            for batch in file.iter_batches(batch_size=rows, columns=["image_id", "embedding"]):
                yield batch.column("image_id").to_pylist(), tables.vectors(batch.column("embedding"))


def sample(
    paths: Sequence[Path], *, count: int, key: Sequence[Any], excluded: Collection[str] = ()
) -> tuple[list[str], np.ndarray]:
    """A random sample of `count` embeddings (all, where there are fewer), as names and (n, dim).

    Those whose names come first when ordered by their hash with `key`: so neither the cut of
    the parts nor their order matters, and a bigger sample begins with the smaller one. Reads
    the names first, then the vectors: memory is that of the names and of the sample.
    """
    left_out = frozenset(excluded)
    names = (name for path in paths for name in _names(path) if name not in left_out)
    chosen = heapq.nsmallest(count, names, key=lambda name: keys.seed(*key, name))
    place = {name: row for row, name in enumerate(chosen)}
    values: np.ndarray | None = None
    for found, vectors in stream(paths):
        rows = [row for row, name in enumerate(found) if name in place]
        if values is None:
            values = np.empty((len(chosen), vectors.shape[1]), dtype=np.float32)
        values[[place[found[row]] for row in rows]] = vectors[rows]
    if values is None or not chosen:
        raise InputError(f"no embeddings to draw from in {len(paths)} parts (left out: {len(left_out)})")
    return chosen, values


def _names(path: Path) -> Iterator[str]:
    with opened(path, ["image_id"]) as file:
        for batch in file.iter_batches(columns=["image_id"]):
            yield from batch.column("image_id").to_pylist()
