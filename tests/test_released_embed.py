"""`abc embed`: features of a JSON of test cases, read back by the evaluation, equal to the encoder's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core import families
from attrib_core.__main__ import main
from attrib_core.released import cases
from tests.embedding_fixtures import noise_pictures, png


def write_case(folder: Path) -> Path:
    """Three models of 1, 2 and 3 exemplars and two schemes, one of them with the clobbered category."""
    pictures = iter(noise_pictures(40, size=16))

    def picture(path: str) -> str:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(png(next(pictures)))
        return path

    entries: list[dict[str, Any]] = [
        {
            "exemplar": [picture(f"dataset/exemplar/a/{number}-{one}.png") for one in range(number + 1)],
            "synth": {
                kind: [picture(f"dataset/synth/{kind}/{number}/{one}.png") for one in range(2)]
                for kind in ("gpt", "media")
            },
            "class_id": f"n{number}",
            "category": ["exemplar", "dog", None][number],
        }
        for number in range(3)
    ]
    path = folder / "test_case.json"
    path.write_text(json.dumps(entries))
    return path


def embed(testcase: Path, out: Path, *more: str, encoder: str = "pixel") -> int:
    options = ["--testcase", testcase, "--images", testcase.parent, "--encoder", encoder, "--out", out]
    return main(["abc", "embed", *map(str, options), *more])


def test_features_are_the_encoders_in_the_order_of_the_json(tmp_path, capsys):
    import torch

    testcase, out = write_case(tmp_path), tmp_path / "feats" / "test_case.pth"
    assert embed(testcase, out, "--set", "size=4") == 0
    assert "3 models, 6 exemplars, 48 features" in capsys.readouterr().out
    encoder = families.load("encoders", "pixel", {"size": 4})
    content = torch.load(out, weights_only=True)
    from PIL import Image

    def own(paths: list[str]) -> np.ndarray:
        features: np.ndarray = encoder.encode(np.asarray(Image.open(tmp_path / path)) for path in paths)
        return features

    assert np.array_equal(content["exemplar_tensors"].numpy(), own(content["exemplar_paths"]))
    assert content["exemplar_chunks"] == [(0, 1), (1, 3), (3, 6)]
    for kind in ("gpt", "media"):
        assert np.array_equal(content["synth_tensors"][kind].numpy(), own(content["synth_paths"][kind]))
        assert content["synth_ids"][kind] == [0, 0, 1, 1, 2, 2]
    assert content["categories"] == ["train", "dog", None] and content["class_ids"] == ["n0", "n1", "n2"]


def test_the_evaluation_opens_what_was_made_and_threads_change_nothing(tmp_path):
    testcase = write_case(tmp_path)
    assert (
        embed(testcase, tmp_path / "one.pth") == embed(testcase, tmp_path / "two.pth", "--threads", "3") == 0
    )
    assert (tmp_path / "one.pth").read_bytes() != b""
    one, two = (cases.read_test(tmp_path / f"{name}.pth") for name in ("one", "two"))
    assert cases.categories(one, testcase) == ["train", "dog", None]
    for left, right in zip([one.exemplars, *(q.features for q in one.queries)],
                           [two.exemplars, *(q.features for q in two.queries)], strict=True):  # fmt: skip
        pairs = zip(left.blocks(100), right.blocks(100), strict=True)
        assert all(np.array_equal(a.vectors, b.vectors) for a, b in pairs)


def test_an_encoder_of_a_config_may_be_named(tmp_path):
    (tmp_path / "c.yaml").write_text("encoders: {mine: {family: palette, bins: 2}}\n")
    testcase, out = write_case(tmp_path), tmp_path / "x.pth"
    assert embed(testcase, out, "--config", str(tmp_path / "c.yaml"), encoder="mine") == 0
    assert cases.read_test(out).exemplars.dim == 14


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run: demo\n", "c.yaml has no encoders"),
        ("encoders: {mine: {bins: 2}}\n", "'mine' of .*c.yaml names no family and no preset"),
        ("encoders: [a\n", "c.yaml cannot be read"),
        ("encoders: {mina: {family: pixel}}\n", "no 'mine', did you mean 'mina'"),
    ],
)
def test_configs_without_that_encoder_are_told(tmp_path, capsys, text, words):
    (tmp_path / "c.yaml").write_text(text)
    given = ["--config", str(tmp_path / "c.yaml")]
    assert embed(write_case(tmp_path), tmp_path / "x.pth", *given, encoder="mine") == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("encoder", "more", "words"),
    [
        ("abc-clipp", [], "--encoder: no 'abc-clipp', did you mean 'abc-clip'"),
        ("abc-moco", [], "--encoder.weights: preset 'abc-moco' needs the file https://"),
        ("pixel", ["--set", "sise=4"], "--encoder.sise: no option of family 'pixel', did you mean 'size'"),
        ("pixel", ["--set", "size"], "--set: 'size'; expected KEY=VALUE"),
        ("abc-dino", ["--set", "weights=none.pth"], "--encoder: weights: no file 'none.pth'"),
        (
            "text",
            ["--set", "base_model={family: bundled}"],
            "--encoder: 'text' reads words, and",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, encoder, more, words):
    out = tmp_path / "x.pth"
    assert embed(write_case(tmp_path), out, *more, encoder=encoder) == 2
    assert words in capsys.readouterr().err and not out.exists()


def test_missing_and_broken_pictures_are_named_before_anything_is_written(tmp_path, capsys):
    testcase, out = write_case(tmp_path), tmp_path / "x.pth"
    broken = tmp_path / "dataset/synth/media/1/0.png"
    broken.write_bytes(b"junk")
    assert embed(testcase, out) == 2
    assert f"{broken}: 4 bytes are no picture" in capsys.readouterr().err
    broken.unlink()
    assert embed(testcase, out) == 2
    assert f"entry 1, media: no file {broken}; expected --images" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob("*.tmp"))
