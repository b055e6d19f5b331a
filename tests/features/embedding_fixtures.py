"""Small tables of images and of embeddings, and encoders that need no network."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from attrib_core.features.embedding import encode
from attrib_core.storage import tables


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def noise_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """(count, size, size, 3) uint8: coarse random patches, unlike each other."""
    cells = np.random.default_rng(seed).integers(0, 256, (count, size // 4, size // 4, 3), dtype=np.uint8)
    return cells.repeat(4, axis=1).repeat(4, axis=2)


def write_images(
    path: Path, ids: Sequence[str], data: Sequence[bytes | None], *, column: str = "image_id"
) -> Path:
    """Write a table with the columns `column` and `image`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": value, "path": None} for value in data], type=tables.IMAGE)
    pq.write_table(pa.table({column: pa.array(list(ids), pa.string()), "image": images}), path)
    return path


def write_embeddings(path: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    """Write a part of embeddings."""
    with tables.writer(path, tables.embedding_schema(vectors.shape[1])) as sink:
        if len(ids):
            sink.write(tables.embedding_table(list(ids), vectors.astype(np.float32)))
    return path


def write_parts(folder: Path, ids: Sequence[str], vectors: np.ndarray, size: int) -> list[Path]:
    """Write embeddings in parts of `size` rows."""
    starts = range(0, len(ids), size)
    return [
        write_embeddings(
            folder / f"part-{number:04d}.parquet", ids[start : start + size], vectors[start : start + size]
        )
        for number, start in enumerate(starts)
    ]


class MeanColour:
    """An encoder: the mean of each channel, and one."""

    dim = 4
    identity: dict[str, Any] = {"family": "mean_colour", "dim": 4}

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        rows = [[*image.mean(axis=(0, 1)), 1] for image in images]
        return np.array(rows, dtype=np.float32).reshape(-1, 4)


def encode_images(
    path: Path, encoder: Any, *, id_column: str = "image_id", text_column: str | None = None, threads: int = 0
) -> tuple[list[str], np.ndarray]:
    """All ids of an image table, and its features."""
    columns = {"id_column": id_column, "text_column": text_column}
    chunks = list(encode.encode_table(path, encoder=encoder, threads=threads, **columns))
    return [name for ids, _ in chunks for name in ids], np.concatenate([features for _, features in chunks])
