"""The text that encoders read from a table: without the modifier token, for any part size; a fusion reads both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.features.embedding import embedding_tables, encode
from attrib_core.storage import tables
from tests.features.embedding_fixtures import encode_images, noise_images, png

BUNDLED = {"family": "bundled"}


def write_texts(path: Path, texts: list[str | None], *, images: bool = True) -> Path:
    data = [png(one) for one in noise_images(len(texts))]
    cells = pa.array([{"bytes": one, "path": None} for one in data], type=tables.IMAGE)
    columns = {
        "image_id": [f"p{number}" for number in range(len(texts))],
        "text": pa.array(texts, pa.string()),
    }
    pq.write_table(pa.table(columns | ({"image": cells} if images else {})), path)
    return path


def features_of(path: Path, encoder: Any, threads: int = 0) -> np.ndarray:
    return encode_images(path, encoder, text_column="text", threads=threads)[1]


def test_text_is_read_without_the_modifier_token_for_any_part_size(load_encoder, tmp_path, monkeypatch):
    texts = [f"a <new1> {noun} in the snow" for noun in ("animal", "fruit", "house")] + [
        "an owl",
        "",
        "a cat",
    ]
    without_token = [
        "an animal in the snow",
        "a fruit in the snow",
        "a house in the snow",
        "an owl",
        "",
        "a cat",
    ]
    encoder = load_encoder("text")
    expected = encoder.encode(without_token)
    path = write_texts(tmp_path / "a.parquet", texts)
    assert np.array_equal(features_of(path, encoder), expected)
    monkeypatch.setattr(encode, "CHUNK", 1)
    assert np.array_equal(features_of(path, encoder, threads=3), expected)
    first, second = (
        write_texts(tmp_path / f"{n}.parquet", rows) for n, rows in enumerate([texts[:2], texts[2:]])
    )
    assert np.array_equal(np.concatenate([features_of(one, encoder) for one in (first, second)]), expected)
    alone = write_texts(tmp_path / "alone.parquet", texts, images=False)
    assert np.array_equal(features_of(alone, encoder), expected)  # images are not read


@pytest.mark.parametrize("threads", [0, 3])
def test_a_fusion_reads_images_and_text(load_encoder, tmp_path, threads):
    texts = ["an owl", "a cat", "", "a train"]
    parts = {
        "look": {"family": "pixel", "size": 3},
        "caption": {"family": "text", "base_model": BUNDLED, "weight": 0.25},
    }
    encoder = load_encoder("fusion", parts=parts)
    assert encoder.reads == "both" and encoder.dim == 27 + 96
    found = features_of(write_texts(tmp_path / "a.parquet", texts), encoder, threads)
    look = families.load("encoders", "pixel", {"size": 3}).encode(noise_images(4))
    caption = load_encoder("text").encode(texts)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (look, caption)]
    assert np.allclose(found, np.concatenate([unit[1] / 2, unit[0]], axis=1), atol=1e-6)
    two_texts = load_encoder("fusion", parts={"a": parts["caption"], "b": parts["caption"]})
    assert two_texts.reads == "text"
    assert features_of(write_texts(tmp_path / "b.parquet", texts, images=False), two_texts).shape == (4, 192)
    assert load_encoder("fusion", parts={"a": parts["look"]}).reads == "images"


def test_a_table_without_text_is_refused_if_the_encoder_reads_it(load_encoder, tmp_path):
    path = write_texts(tmp_path / "a.parquet", ["an owl", None])
    with pytest.raises(
        InputError, match="a.parquet: image 'p1' has None as 'text'; expected text, '' for none"
    ):
        features_of(path, load_encoder("text"))
    assert features_of(path, families.load("encoders", "pixel", {"size": 2})).shape == (2, 12)
    with pytest.raises(InputError, match=r"a.parquet: missing columns \['caption'\]"):
        encode_images(path, load_encoder("text"), text_column="caption")
    with pytest.raises(InputError, match="a.parquet: encoder 'text' reads text; name the column of it"):
        encode_images(path, load_encoder("text"))


def test_an_encoder_that_reads_something_else_is_refused(tmp_path):
    class Odd:
        reads, dim, identity = "sounds", 1, {"family": "odd"}

    with pytest.raises(InputError, match="encoder 'odd' reads 'sounds', expected one of images, text, both"):
        features_of(write_texts(tmp_path / "a.parquet", ["a"]), Odd())


def test_the_script_reads_its_text_column(run_script, tmp_path, load_encoder):
    path = write_texts(tmp_path / "in.parquet", ["an owl", "a <new1> owl"])
    run_script(
        "embed",
        input={"images": str(path)},
        output={"embeddings": str(tmp_path / "out" / "part.parquet")},
        params={
            "id_column": "image_id", "text_column": "text", "pieces": {"by": None}, "feature_code": "x",
            "run": str(tmp_path / "results" / "run"), "encoder": {"family": "text", "base_model": BUNDLED},
        },
        wildcards={"encoder": "caption"},
    )  # fmt: skip
    _, features = embedding_tables.read(tmp_path / "out" / "part.parquet")
    assert np.array_equal(features, load_encoder("text").encode(["an owl", "an owl"]))
