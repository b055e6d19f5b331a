"""Features of image tables: the same for any part size and number of threads; bad encoders and images are named."""

from __future__ import annotations

import io
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.data.images import to_rgb
from attrib_core.features.embedding import encode
from tests.features.embedding_fixtures import MeanColour, encode_images, noise_images, png, write_images


def test_every_image_gets_its_features_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "CHUNK", 4)
    images = noise_images(11)
    ids = [f"p{number}" for number in range(11)]
    path = write_images(tmp_path / "a.parquet", ids, [png(image) for image in images])
    names, features = encode_images(path, MeanColour())
    assert names == ids
    assert np.array_equal(features, MeanColour().encode(images))


def test_features_do_not_depend_on_part_sizes(tmp_path):
    images = noise_images(10)
    data = [png(image) for image in images]
    encoder = families.load("encoders", "pixel", {"size": 4})
    whole = write_images(tmp_path / "whole.parquet", [str(n) for n in range(10)], data)
    first = write_images(tmp_path / "1.parquet", [str(n) for n in range(3)], data[:3])
    second = write_images(tmp_path / "2.parquet", [str(n) for n in range(3, 10)], data[3:])
    expected = encode_images(whole, encoder)
    names, features = zip(encode_images(first, encoder), encode_images(second, encoder), strict=True)
    assert sum(names, []) == expected[0]
    assert np.array_equal(np.concatenate(features), expected[1])


def test_an_empty_table_yields_nothing(tmp_path):
    path = write_images(tmp_path / "a.parquet", [], [])
    assert list(encode.encode_table(path, id_column="image_id", encoder=MeanColour())) == []


def test_images_are_decoded_one_at_a_time(tmp_path):
    """A part of 20 images of 1 MB each (in memory) never needs more than a few of them."""
    data = png(np.zeros((600, 600, 3), np.uint8))
    path = write_images(tmp_path / "a.parquet", [str(n) for n in range(20)], [data] * 20)
    tracemalloc.start()
    encode_images(path, MeanColour())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


class Prepared(MeanColour):
    """An encoder with `prepare`, as those with a network have, which runs where images are decoded."""

    batch = 3

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def prepare(self, image: np.ndarray) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        return image.astype(np.float32)

    def encode_prepared(self, prepared: Iterable[np.ndarray]) -> np.ndarray:
        return super().encode(prepared)


@pytest.mark.parametrize("encoder", [MeanColour(), Prepared()], ids=["encode", "prepare"])
def test_features_do_not_depend_on_decoding_threads(tmp_path, monkeypatch, encoder):
    monkeypatch.setattr(encode, "CHUNK", 4)
    images = [one[: 8 + 4 * (number % 7)] for number, one in enumerate(noise_images(40))]
    ids = [f"p{number}" for number in range(40)]
    path = write_images(tmp_path / "a.parquet", ids, [png(image) for image in images])
    expected = encode_images(path, encoder)
    assert expected[0] == ids and np.array_equal(expected[1], MeanColour().encode(images))
    for threads in (1, 3, 8):
        names, features = encode_images(path, encoder, threads=threads)
        assert names == ids and np.array_equal(features, expected[1])
    if isinstance(encoder, Prepared):
        assert any(name.startswith("decoding") for name in encoder.threads)


def test_threads_decode_a_bounded_number_of_images_ahead(tmp_path, monkeypatch):
    """A broken image is reported in its turn, by its id, and decoding stops."""
    opened: list[str] = []
    taken: list[int] = []
    most = 2 * encode.IMAGES_AHEAD
    real = to_rgb

    def counted(data: bytes, *, where: str) -> np.ndarray:
        opened.append(where)
        return real(data, where=where)

    class Slow(MeanColour):
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

    monkeypatch.setattr(encode, "to_rgb", counted)
    data = [png(one) for one in noise_images(60)]
    path = write_images(tmp_path / "a.parquet", [str(n) for n in range(60)], data)
    encode_images(path, Slow(), threads=2)
    assert max(taken) == most
    path = write_images(tmp_path / "b.parquet", [str(n) for n in range(60)], [*data[:9], b"x", *data[10:]])
    opened.clear()
    with pytest.raises(InputError, match="b.parquet: image '9': 1 bytes are no image"):
        encode_images(path, Slow(), threads=2)
    assert len(opened) < 30


def test_by_default_threads_decode_where_the_encoder_is_on_a_gpu(tmp_path, monkeypatch):
    requested: list[int] = []
    monkeypatch.setattr(
        encode,
        "_map_ahead",
        lambda items, function, threads: requested.append(threads) or map(function, items),
    )
    path = write_images(tmp_path / "a.parquet", ["a"], [png(one) for one in noise_images(1)])
    encoder = MeanColour()
    encode_images(path, encoder, threads=-1)
    encoder.device = "cuda:0"
    encode_images(path, encoder, threads=-1)
    encode_images(path, encoder, threads=0)
    assert requested == [0, encode.GPU_DECODING_THREADS, 0]


def unusual_modes() -> dict[str, tuple[bytes, np.ndarray]]:
    """Files of unusual image modes, and the RGB that the documented conversion gives."""
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
    rotated[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    add("EXIF", Image.fromarray(colours), np.rot90(colours, -1), exif=rotated)
    add("1 bit", Image.fromarray(eight > 99), np.repeat((eight > 99)[..., None] * np.uint8(255), 3, axis=2))
    return found


@pytest.mark.parametrize("name", ["16 bit", "CMYK", "palette", "alpha", "EXIF", "1 bit"])
def test_images_of_unusual_modes_are_encoded_as_rgb(tmp_path, name):
    data, expected = unusual_modes()[name]
    path = write_images(tmp_path / "a.parquet", ["a"], [data])
    encoder = families.load("encoders", "pixel", {"size": 32, "centred": False})
    _, features = encode_images(path, encoder)
    assert np.abs(features.reshape(32, 32, 3) * 255 - expected).max() <= 1.01  # one level, by rounding


@pytest.mark.parametrize("mode", ["F", "I"])
def test_images_without_a_defined_white_are_refused_by_name(tmp_path, mode):
    from PIL import Image

    stream = io.BytesIO()
    Image.new(mode, (4, 4)).save(stream, "TIFF")
    path = write_images(tmp_path / "a.parquet", ["a"], [stream.getvalue()])
    with pytest.raises(InputError, match=f"a.parquet: image 'a': pixels of mode '{mode}'"):
        encode_images(path, MeanColour())


class Broken(MeanColour):
    def __init__(self, change: Any) -> None:
        self._change = change

    def encode(self, images: Iterable[np.ndarray]) -> np.ndarray:
        changed: np.ndarray = self._change(super().encode(images))
        return changed


def with_nan(features: np.ndarray) -> np.ndarray:
    features[1, 2] = np.nan
    return features


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, "non-finite numbers for 'b'"),
        (
            lambda features: features[:, :3],
            r"float32 of shape \(3, 3\) for 3 images, expected float32 of shape \(3, 4\)",
        ),
        (lambda features: features[:2], r"float32 of shape \(2, 4\) for 3 images"),
        (lambda features: features.astype(np.float64), "float64"),
    ],
)
def test_features_that_break_the_encoder_contract_are_refused(tmp_path, change, message):
    path = write_images(tmp_path / "a.parquet", list("abc"), [png(one) for one in noise_images(3)])
    with pytest.raises(InputError, match=f"a.parquet: encoder 'mean_colour' gave {message}"):
        encode_images(path, Broken(change))


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
    with pytest.raises(InputError, match="encoder 'timm' gave non-finite numbers for 'a'"):
        encode_images(path, encoder)


def test_bad_tables_and_images_are_named(tmp_path):
    with pytest.raises(InputError, match="none.parquet: no such table"):
        encode_images(tmp_path / "none.parquet", MeanColour())
    (tmp_path / "bad.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match="bad.parquet: not a readable Parquet file"):
        encode_images(tmp_path / "bad.parquet", MeanColour())
    path = write_images(tmp_path / "a.parquet", ["a"], [b"junk"])
    with pytest.raises(InputError, match="a.parquet: image 'a': 4 bytes are no image"):
        encode_images(path, MeanColour())
    with pytest.raises(InputError, match=r"a.parquet: missing columns \['query_id'\]"):
        list(encode.encode_table(path, id_column="query_id", encoder=MeanColour()))
    with pytest.raises(InputError, match="a.parquet: image 'b' has no bytes"):
        encode_images(write_images(tmp_path / "a.parquet", ["b"], [None]), MeanColour())
