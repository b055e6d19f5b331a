"""Tables of embeddings: identity of the encoder, streaming and sampling, whatever the part size."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embedding_tables
from attrib_core.storage import tables
from tests.features.embedding_fixtures import MeanColour, write_embeddings, write_parts


def test_a_part_holds_the_identity_of_its_encoder(tmp_path):
    path = tmp_path / "e.parquet"
    with tables.writer(path, embedding_tables.schema(MeanColour())) as sink:
        sink.write(tables.embedding_table(["a"], np.ones((1, 4), np.float32)))
    assert embedding_tables.identity(path) == MeanColour.identity
    names, features = embedding_tables.read(path)
    assert names == ["a"] and features.shape == (1, 4)


def test_streaming_gives_back_what_was_written_for_any_part_size(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
    ids = [f"r{number}" for number in range(23)]
    for size in (1, 7, 23):
        paths = write_parts(tmp_path / str(size), ids, vectors, size)
        chunks = list(embedding_tables.stream(paths, rows=4))
        assert [name for names, _ in chunks for name in names] == ids
        assert np.array_equal(np.concatenate([values for _, values in chunks]), vectors)
        assert max(len(names) for names, _ in chunks) <= 4


def test_parts_must_have_one_dimension_and_the_right_type(tmp_path):
    first = write_embeddings(tmp_path / "1.parquet", ["a"], np.ones((1, 3)))
    second = write_embeddings(tmp_path / "2.parquet", ["b"], np.ones((1, 4)))
    with pytest.raises(InputError, match="2.parquet: embeddings of 4 dimensions, the files before have 3"):
        list(embedding_tables.stream([first, second]))
    pq.write_table(pa.table({"image_id": ["a"], "embedding": [[1.0]]}), tmp_path / "3.parquet")
    with pytest.raises(InputError, match="3.parquet: column 'embedding' is list"):
        list(embedding_tables.stream([tmp_path / "3.parquet"]))
    with pytest.raises(InputError, match="it holds no embeddings"):
        embedding_tables.read(write_embeddings(tmp_path / "4.parquet", [], np.ones((0, 3))))


def test_a_sample_depends_on_names_and_key_only(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    ids = [f"r{number}" for number in range(200)]
    one = embedding_tables.sample(write_parts(tmp_path / "a", ids, vectors, 200), count=30, key=(1, "x"))
    parts = write_parts(tmp_path / "b", ids, vectors, 13)
    other = embedding_tables.sample(parts[::-1], count=30, key=(1, "x"))
    assert one[0] == other[0] and np.array_equal(one[1], other[1])
    assert all(np.array_equal(vectors[int(name[1:])], row) for name, row in zip(*one, strict=True))
    assert len(set(one[0])) == 30
    assert embedding_tables.sample(parts, count=60, key=(1, "x"))[0][:30] == one[0]
    assert embedding_tables.sample(parts, count=30, key=(2, "x"))[0] != one[0]


def test_a_sample_omits_excluded_names_and_returns_all_if_there_are_fewer(tmp_path):
    paths = write_parts(tmp_path, list("abcdef"), np.eye(6), 2)
    names, vectors = embedding_tables.sample(paths, count=99, key=(0,), excluded=["b", "e", "stranger"])
    assert sorted(names) == ["a", "c", "d", "f"]
    assert np.array_equal(vectors.argmax(axis=1), ["abcdef".index(name) for name in names])
    with pytest.raises(InputError, match="no embeddings to draw from"):
        embedding_tables.sample(paths, count=3, key=(0,), excluded=list("abcdef"))
