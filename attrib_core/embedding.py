"""Embeddings of pictures: a part of a table of pictures in, a part of embeddings out.

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
from attrib_core.errors import InputError
from attrib_core.jobs import progress

CHUNK = 256
THREADS_BESIDE_A_GPU = 4
AHEAD = 4
_METADATA = b"encoder"
Item = TypeVar("Item")
Result = TypeVar("Result")


class Encoder(Protocol):
    """What a family of `encoders` gives: a feature function on pictures.

    `dim` is the number of features, `identity` what decides about them (family, options,
    checksum of the weights) as plain JSON values. The bits of a picture's features do not
    depend on which pictures are encoded with it.

    An encoder may split its work: `encode(pictures)` is then `encode_prepared(map(prepare, pictures))`,
    and `prepare`, of one picture, is run by the threads that decode. It may say its `batch`.
    """

    dim: int
    identity: dict[str, Any]

    def encode(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """(height, width, 3) uint8 pictures, taken lazily, to (pictures, dim) float32."""
        ...


def load(section: Mapping[str, Any], where: str, *, device: str = "auto") -> Encoder:
    """The encoder of a config section, on a device; an InputError names the config key `where`."""
    family, options = families.split(section)
    try:
        encoder: Encoder = families.load("encoders", family, options, where=where, device=device)
    except InputError as error:
        raise error.under(where) from None
    return encoder


def embed(
    path: Path, *, ids: str, encoder: Encoder, threads: int = 0, chosen: Sequence[bool] | None = None
) -> Iterator[pa.Table]:
    """Embeddings of the pictures in a Parquet file, in tables of at most about a row group.

    `ids` is the column that names a picture; the pictures are in the column `image`. So many
    `threads` decode and prepare ahead of the encoder, AHEAD pictures each at most; with 0 it is
    done as pictures are needed; -1 means THREADS_BESIDE_A_GPU where the encoder computes on one, else
    none. The result does not depend on it. `chosen` says of each row whether it is wanted; None: all are.
    Raises InputError for a missing file or column, a picture without bytes or that cannot be decoded, and
    features that are not (pictures, dim) finite float32.
    """
    rows: list[np.ndarray] = []
    names: list[str] = []
    with _open(path, [ids, "image"]) as file:
        total = file.metadata.num_rows if chosen is None else sum(chosen)
        files = _files(file, path, ids) if chosen is None else compress(_files(file, path, ids), chosen)
        chunks = encoded(files, encoder, where=str(path), total=total, threads=threads)
        for found, features in chunks:
            names += found
            rows.append(features)
            if len(names) >= tables.ROW_GROUP:
                yield tables.embedding_table(names, np.concatenate(rows))
                rows, names = [], []
    if names:
        yield tables.embedding_table(names, np.concatenate(rows))


def encoded(
    files: Iterable[tuple[str, bytes, str]],
    encoder: Encoder,
    *,
    where: str,
    total: int | None = None,
    threads: int = 0,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and (n, dim) float32 of picture files, some hundreds at a time; see `embed`.

    `files` are the name, the encoded picture, and words for an error about it; `where` names all of them.
    """
    if threads < 0:
        threads = THREADS_BESIDE_A_GPU if getattr(encoder, "device", "cpu") != "cpu" else 0
    prepare = getattr(encoder, "prepare", None)

    def opened(item: tuple[str, bytes, str]) -> tuple[str, np.ndarray]:
        name, data, about = item
        picture = decoding.to_rgb(data, where=about)
        return name, prepare(picture) if prepare else picture

    pictures = progress(_ahead(files, opened, threads), total=total, what="pictures")
    while chunk := _encoded(pictures, encoder, where):
        yield chunk


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


def _open(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; expected a Parquet file") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from None
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"{path}: missing columns {missing}; it has {file.schema_arrow.names}")
    return file


def _files(file: pq.ParquetFile, path: Path, ids: str) -> Iterator[tuple[str, bytes, str]]:
    """Name, encoded picture, and words for an error, row by row."""
    for batch in file.iter_batches(batch_size=CHUNK, columns=[ids, "image"]):
        for name, image in zip(batch.column(ids), batch.column("image"), strict=True):
            where = f"{path}: picture {name.as_py()!r}"
            data = image["bytes"].as_py() if image.is_valid else None
            if data is None:
                raise InputError(f"{where} has no bytes; expected the encoded picture in image.bytes")
            yield name.as_py(), data, where


def _encoded(
    pictures: Iterator[tuple[str, np.ndarray]], encoder: Encoder, where: str
) -> tuple[list[str], np.ndarray] | None:
    names: list[str] = []
    if (first := next(pictures, None)) is None:
        return None  # no encoder is asked for the features of nothing
    batch = getattr(encoder, "batch", 1)
    size = batch * math.ceil(CHUNK / batch)  # whole batches: the last of a chunk is not filled up for nothing

    def taken() -> Iterator[np.ndarray]:
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
        with _open(path, ["image_id", "embedding"]) as file:
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
    with _open(path, ["image_id"]) as file:
        for batch in file.iter_batches(columns=["image_id"]):
            yield from batch.column("image_id").to_pylist()
