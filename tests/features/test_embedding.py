"""Parts of images become parts of embeddings: the same rows in any cut, bad encoders and bad images named."""

from __future__ import annotations

import io
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.data.images import to_rgb
from attrib_core.features.embedding import embedding_tables, encoder_protocol, encoding
from attrib_core.storage import tables
from tests.features.embedding_fixtures import (
    noise_images,
    png,
    write_embeddings,
    write_images,
    write_parts,
)


class MeanColor:
    """An encoder for tests: the mean of each channel, and one."""

    dim = 4
    identity: dict[str, Any] = {"family": "mean_color", "dim": 4}

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        rows = [[*image.mean(axis=(0, 1)), 1] for image in images]
        return np.array(rows, dtype=np.float32).reshape(-1, 4)


def embedded(
    path: Path, encoder: encoder_protocol.Encoder | None = None, threads: int = 0
) -> tuple[list[str], np.ndarray]:
    parts = list(encoding.embed(path, ids="image_id", encoder=encoder or MeanColor(), threads=threads))
    names = [name for part in parts for name in part["image_id"].to_pylist()]
    return names, np.concatenate([tables.vectors(part["embedding"]) for part in parts])


def test_every_image_gets_its_features_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 4)
    images = noise_images(11)
    ids = [f"p{number}" for number in range(11)]
    path = write_images(tmp_path / "a.parquet", ids, [png(image) for image in images])
    names, features = embedded(path)
    assert names == ids
    assert np.array_equal(features, MeanColor().encode(images))


def test_tables_have_at_most_about_a_row_group_and_the_documented_schema(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 2)
    monkeypatch.setattr(tables, "ROW_GROUP", 4)
    path = write_images(tmp_path / "a.parquet", list("abcdefghi"), [png(one) for one in noise_images(9)])
    parts = list(encoding.embed(path, ids="image_id", encoder=MeanColor()))
    assert [len(part) for part in parts] == [4, 4, 1]
    for part in parts:
        tables.conform(part, tables.embedding_schema(4), "part")


def test_the_cut_into_parts_changes_nothing(tmp_path):
    images = noise_images(10)
    data = [png(image) for image in images]
    encoder = families.load("encoders", "pixel", {"size": 4})
    whole = write_images(tmp_path / "whole.parquet", [str(n) for n in range(10)], data)
    first = write_images(tmp_path / "1.parquet", [str(n) for n in range(3)], data[:3])
    second = write_images(tmp_path / "2.parquet", [str(n) for n in range(3, 10)], data[3:])
    expected = embedded(whole, encoder)
    names, features = zip(embedded(first, encoder), embedded(second, encoder), strict=True)
    assert sum(names, []) == expected[0]
    assert np.array_equal(np.concatenate(features), expected[1])


def test_an_empty_part_yields_nothing(tmp_path):
    path = write_images(tmp_path / "a.parquet", [], [])
    assert list(encoding.embed(path, ids="image_id", encoder=MeanColor())) == []


def test_images_are_decoded_one_at_a_time(tmp_path):
    """A part of 20 images of 1 MB each (in memory) never needs more than a few of them."""
    data = png(np.zeros((600, 600, 3), np.uint8))
    path = write_images(tmp_path / "a.parquet", [str(n) for n in range(20)], [data] * 20)
    tracemalloc.start()
    embedded(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


class Prepared(MeanColor):
    """Split as encoders with a network are: `prepare` runs where images are decoded."""

    batch = 3

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def prepare(self, image: np.ndarray) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        return image.astype(np.float32)

    def encode_prepared(self, prepared: Iterable[np.ndarray]) -> np.ndarray:
        return super().encode(prepared)


@pytest.mark.parametrize("encoder", [MeanColor(), Prepared()], ids=["whole", "split"])
def test_threads_that_decode_ahead_change_nothing(tmp_path, monkeypatch, encoder):
    monkeypatch.setattr(encoding, "CHUNK", 4)
    images = [one[: 8 + 4 * (number % 7)] for number, one in enumerate(noise_images(40))]
    ids = [f"p{number}" for number in range(40)]
    path = write_images(tmp_path / "a.parquet", ids, [png(image) for image in images])
    expected = embedded(path, encoder)
    assert expected[0] == ids and np.array_equal(expected[1], MeanColor().encode(images))
    for threads in (1, 3, 8):
        names, features = embedded(path, encoder, threads)
        assert names == ids and np.array_equal(features, expected[1])
    if isinstance(encoder, Prepared):
        assert any(name.startswith("decoding") for name in encoder.threads)


def test_threads_run_a_bounded_number_of_images_ahead(tmp_path, monkeypatch):
    """And a broken image is told in its turn, by its name, after which nothing goes on."""
    opened: list[str] = []
    taken: list[int] = []
    most = 2 * encoding.AHEAD
    real = to_rgb

    def counted(data: bytes, *, where: str) -> np.ndarray:
        opened.append(where)
        return real(data, where=where)

    class Slow(MeanColor):
        def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
            def watched() -> Iterator[np.ndarray]:
                for number, image in enumerate(images):
                    deadline = time.monotonic() + 120
                    while len(opened) < min(number + most, 60) and time.monotonic() < deadline:
                        time.sleep(0.001)
                    time.sleep(0.002)
                    taken.append(len(opened) - number)
                    yield image

            return super().encode(watched())

    monkeypatch.setattr(encoding, "to_rgb", counted)
    data = [png(one) for one in noise_images(60)]
    path = write_images(tmp_path / "a.parquet", [str(n) for n in range(60)], data)
    embedded(path, Slow(), 2)
    assert max(taken) == most
    path = write_images(tmp_path / "b.parquet", [str(n) for n in range(60)], [*data[:9], b"x", *data[10:]])
    opened.clear()
    with pytest.raises(InputError, match="b.parquet: image '9': 1 bytes are no image"):
        embedded(path, Slow(), 2)
    assert len(opened) < 30


def test_without_a_number_threads_decode_where_a_gpu_computes(tmp_path, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(
        encoding, "_ahead", lambda items, work, threads: asked.append(threads) or map(work, items)
    )
    path = write_images(tmp_path / "a.parquet", ["a"], [png(one) for one in noise_images(1)])
    encoder = MeanColor()
    embedded(path, encoder, -1)
    encoder.device = "cuda:0"
    embedded(path, encoder, -1)
    embedded(path, encoder, 0)
    assert asked == [0, encoding.THREADS_BESIDE_A_GPU, 0]


def strange() -> dict[str, tuple[bytes, np.ndarray]]:
    """Files of strange modes, and the RGB that the one documented conversion makes of each."""
    from PIL import Image

    gray = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    colours = noise_images(1)[0]
    found: dict[str, tuple[bytes, np.ndarray]] = {}

    def add(name: str, image: Image.Image, expected: np.ndarray, kind: str = "PNG", **options: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        found[name] = (stream.getvalue(), expected)

    eight = np.round(gray.astype(np.float64) * 255 / 65535).astype(np.uint8)
    add("16 bit", Image.fromarray(gray), np.repeat(eight[..., None], 3, axis=2))
    ink = np.concatenate([255 - colours, np.full((32, 32, 1), 51, np.uint8)], axis=2)
    paper = np.round(colours.astype(np.float64) * 204 / 255).astype(np.uint8)
    add("CMYK", Image.fromarray(ink, "CMYK"), paper, "TIFF")
    palette = Image.fromarray(colours).quantize(16)
    add("palette", palette, np.asarray(palette.convert("RGB")))
    half = np.concatenate([colours, np.full((32, 32, 1), 51, np.uint8)], axis=2)
    over_white = np.round(colours.astype(np.float64) * 0.2 + 255 * 0.8).astype(np.uint8)
    add("alpha", Image.fromarray(half, "RGBA"), over_white)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # the camera was held upright: a quarter turn clockwise shows it
    add("EXIF", Image.fromarray(colours), np.rot90(colours, -1), exif=rotated)
    add("1 bit", Image.fromarray(eight > 99), np.repeat((eight > 99)[..., None] * np.uint8(255), 3, axis=2))
    return found


@pytest.mark.parametrize("name", ["16 bit", "CMYK", "palette", "alpha", "EXIF", "1 bit"])
def test_images_of_every_strange_mode_are_embedded_as_the_rgb_they_stand_for(tmp_path, name):
    data, expected = strange()[name]
    path = write_images(tmp_path / "a.parquet", ["a"], [data])
    encoder = families.load("encoders", "pixel", {"size": 32, "centred": False})
    _, features = embedded(path, encoder)
    assert np.abs(features.reshape(32, 32, 3) * 255 - expected).max() <= 1.01  # a level, by rounding


@pytest.mark.parametrize("mode", ["F", "I"])
def test_images_that_do_not_say_what_white_is_are_refused_by_name(tmp_path, mode):
    from PIL import Image

    stream = io.BytesIO()
    Image.new(mode, (4, 4)).save(stream, "TIFF")
    path = write_images(tmp_path / "a.parquet", ["a"], [stream.getvalue()])
    with pytest.raises(InputError, match=f"a.parquet: image 'a': pixels of mode '{mode}'"):
        embedded(path)


def test_a_dimension_that_changes_on_the_way_is_refused_and_nothing_is_left(run_script, tmp_path, add_family):
    add_family(
        "encoders",
        "changing",
        """
        import numpy as np

        class Changing:
            identity = {"family": "changing"}
            dim = 4
            asked = 0

            def encode(self, images):
                self.asked += 1
                return np.ones((len(list(images)), 4 if self.asked == 1 else 5), np.float32)

        def load():
            return Changing()
        """,
    )
    data = [png(one) for one in noise_images(encoding.CHUNK + 3, size=8)]
    path = write_images(tmp_path / "a.parquet", [str(n) for n in range(len(data))], data)
    target = tmp_path / "out" / "part.parquet"
    with pytest.raises(SystemExit):
        run_script(
            "embed",
            input={"images": str(path)},
            output={"embeddings": str(target)},
            params={
                "ids": "image_id",
                "words": "caption",
                "encoder": {"family": "changing"},
                "run": str(tmp_path / "run"),
                "pieces": {"by": None},
                "feature_code": "x",
            },
            wildcards={"encoder": "x"},
        )
    assert (
        "gave float32 of shape (3, 5) for 3 images, expected float32 of shape (3, 4)"
        in (tmp_path / "job.log").read_text()
    )
    assert not target.exists() and not list(target.parent.iterdir())


class Broken(MeanColor):
    def __init__(self, change: Any) -> None:
        self._change = change

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        changed: np.ndarray = self._change(super().encode(images))
        return changed


def with_nan(features: np.ndarray) -> np.ndarray:
    features[1, 2] = np.nan
    return features


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_nan, "numbers that are not finite for 'b'"),
        (
            lambda features: features[:, :3],
            r"float32 of shape \(3, 3\) for 3 images, expected float32 of shape \(3, 4\)",
        ),
        (lambda features: features[:2], r"float32 of shape \(2, 4\) for 3 images"),
        (lambda features: features.astype(np.float64), "float64"),
    ],
)
def test_what_breaks_the_contract_of_encoders_is_refused(tmp_path, change, words):
    path = write_images(tmp_path / "a.parquet", list("abc"), [png(one) for one in noise_images(3)])
    with pytest.raises(InputError, match=f"a.parquet: encoder 'mean_color' gave {words}"):
        embedded(path, Broken(change))


def test_a_network_with_damaged_weights_is_refused(tmp_path):
    import timm
    import torch
    from safetensors.torch import save_file

    state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    save_file(
        state | {"conv_stem.weight": torch.full_like(state["conv_stem.weight"], float("nan"))},
        tmp_path / "w.safetensors",
    )
    encoder = families.load(
        "encoders",
        "timm",
        {"architecture": "test_efficientnet", "weights": str(tmp_path / "w.safetensors"), "size": 32},
        device="cpu",
    )
    path = write_images(tmp_path / "a.parquet", ["a"], [png(noise_images(1)[0])])
    with pytest.raises(InputError, match="encoder 'timm' gave numbers that are not finite for 'a'"):
        embedded(path, encoder)


def test_bad_tables_and_images_are_named(tmp_path):
    with pytest.raises(InputError, match="none.parquet: no such table"):
        embedded(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match="bad.parquet: not a readable Parquet file"):
        embedded(tmp_path / "bad.parquet")
    path = write_images(tmp_path / "a.parquet", ["a"], [b"junk"])
    with pytest.raises(InputError, match="a.parquet: image 'a': 4 bytes are no image"):
        embedded(path)
    with pytest.raises(InputError, match=r"a.parquet: missing columns \['query_id'\]"):
        list(encoding.embed(path, ids="query_id", encoder=MeanColor()))
    with pytest.raises(InputError, match="a.parquet: image 'b' has no bytes"):
        embedded(write_images(tmp_path / "a.parquet", ["b"], [None]))


def test_a_part_says_which_encoder_made_it(tmp_path):
    path = tmp_path / "e.parquet"
    with tables.writer(path, embedding_tables.schema(MeanColor())) as sink:
        sink.write(tables.embedding_table(["a"], np.ones((1, 4), np.float32)))
    assert embedding_tables.identity(path) == MeanColor.identity
    names, features = embedding_tables.read(path)
    assert names == ["a"] and features.shape == (1, 4)


def test_streaming_gives_back_what_was_written_whatever_the_cut(tmp_path):
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
    with pytest.raises(InputError, match="2.parquet: embeddings of 4 dimensions, expected 3 as before"):
        list(embedding_tables.stream([first, second]))
    pq.write_table(pa.table({"image_id": ["a"], "embedding": [[1.0]]}), tmp_path / "3.parquet")
    with pytest.raises(InputError, match="3.parquet: column 'embedding' is list"):
        list(embedding_tables.stream([tmp_path / "3.parquet"]))
    with pytest.raises(InputError, match="no embeddings in it"):
        embedding_tables.read(write_embeddings(tmp_path / "4.parquet", [], np.ones((0, 3))))


def test_a_sample_depends_on_names_and_key_alone(tmp_path):
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


def test_a_sample_leaves_out_what_is_excluded_and_gives_all_where_there_is_less(tmp_path):
    paths = write_parts(tmp_path, list("abcdef"), np.eye(6), 2)
    names, vectors = embedding_tables.sample(paths, count=99, key=(0,), excluded=["b", "e", "stranger"])
    assert sorted(names) == ["a", "c", "d", "f"]
    assert np.array_equal(vectors.argmax(axis=1), ["abcdef".index(name) for name in names])
    with pytest.raises(InputError, match="no embeddings to draw from"):
        embedding_tables.sample(paths, count=3, key=(0,), excluded=list("abcdef"))


@pytest.mark.parametrize("column", ["image_id", "query_id", "exemplar_id"])
def test_the_script_writes_a_part(run_script, tmp_path, column):
    images = noise_images(3)
    path = write_images(tmp_path / "in.parquet", list("abc"), [png(one) for one in images], column=column)
    run_script(
        "embed",
        input={"images": str(path)},
        output={"embeddings": str(tmp_path / "out" / "part.parquet")},
        params={
            "ids": column,
            "words": "prompt",
            "encoder": {"family": "pixel", "size": 4},
            "run": str(tmp_path / "run"),
            "pieces": {"by": None},
            "feature_code": "x",
        },
        wildcards={"encoder": "small"},
    )
    names, features = embedding_tables.read(tmp_path / "out" / "part.parquet")
    encoder = families.load("encoders", "pixel", {"size": 4})
    assert names == list("abc") and np.array_equal(features, encoder.encode(images))
    assert embedding_tables.identity(tmp_path / "out" / "part.parquet") == encoder.identity
