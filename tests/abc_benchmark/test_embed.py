"""`abc embed`: features of test cases and pools, equal to those of the encoder."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from attrib_core.abc_benchmark import feature_files, test_cases
from attrib_core.cli.main import main
from attrib_core.common import families
from attrib_core.features.embedding import encode
from tests.features.embedding_fixtures import noise_images, png


def write_case(folder: Path) -> Path:
    """Write three models of 1, 2 and 3 exemplars, one of them with the wrong published category."""
    images = iter(noise_images(40, size=16))

    def image(path: str) -> str:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(png(next(images)))
        return path

    entries: list[dict[str, Any]] = [
        {
            "exemplar": [image(f"dataset/exemplar/a/{number}-{one}.png") for one in range(number + 1)],
            "synth": {
                kind: [image(f"dataset/synth/{kind}/{number}/{one}.png") for one in range(2)]
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


def test_features_of_a_test_case_are_in_the_order_of_the_json(tmp_path, capsys):
    testcase, out = write_case(tmp_path), tmp_path / "feats" / "test_case.pth"
    assert embed(testcase, out, "--set", "size=4") == 0
    assert "3 models, 6 exemplars, 48 features" in capsys.readouterr().out
    content = torch.load(out, weights_only=True)
    features = own_features(tmp_path, content["exemplar_paths"])
    assert np.array_equal(content["exemplar_tensors"].numpy(), features)
    assert content["exemplar_chunks"] == [(0, 1), (1, 3), (3, 6)]
    for kind in ("gpt", "media"):
        features = own_features(tmp_path, content["synth_paths"][kind])
        assert np.array_equal(content["synth_tensors"][kind].numpy(), features)
        assert content["synth_ids"][kind] == [0, 0, 1, 1, 2, 2]
    assert content["categories"] == ["train", "dog", None] and content["class_ids"] == ["n0", "n1", "n2"]


def test_the_evaluation_reads_the_features_and_threads_change_nothing(tmp_path):
    testcase = write_case(tmp_path)
    assert (
        embed(testcase, tmp_path / "one.pth") == embed(testcase, tmp_path / "two.pth", "--threads", "3") == 0
    )
    assert (tmp_path / "one.pth").read_bytes() != b""
    one, two = (test_cases.read_test(tmp_path / f"{name}.pth") for name in ("one", "two"))
    assert test_cases.categories(one, testcase) == ["train", "dog", None]
    for left, right in zip([one.exemplars, *(q.features for q in one.queries)],
                           [two.exemplars, *(q.features for q in two.queries)], strict=True):  # fmt: skip
        pairs = zip(left.blocks(100), right.blocks(100), strict=True)
        assert all(np.array_equal(a.vectors, b.vectors) for a, b in pairs)


def test_an_encoder_of_a_config_may_be_named(tmp_path):
    (tmp_path / "c.yaml").write_text("encoders: {mine: {family: palette, bins: 2}}\n")
    testcase, out = write_case(tmp_path), tmp_path / "x.pth"
    assert embed(testcase, out, "--config", str(tmp_path / "c.yaml"), encoder="mine") == 0
    assert test_cases.read_test(out).exemplars.dim == 14


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run: demo\n", "c.yaml has no encoders"),
        ("encoders: {mine: {bins: 2}}\n", "'mine' of .*c.yaml names no family and no preset"),
        ("encoders: [a\n", "--config: .*c.yaml: not readable as YAML: line 2"),
        ("encoders: {mina: {family: pixel}}\n", "no 'mine', did you mean 'mina'"),
    ],
)
def test_configs_without_that_encoder_are_refused(tmp_path, capsys, text, words):
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
            "--encoder: 'text' reads text, and",
        ),
    ],
)
def test_bad_encoders_are_refused_in_one_line(tmp_path, capsys, encoder, more, words):
    out = tmp_path / "x.pth"
    assert embed(write_case(tmp_path), out, *more, encoder=encoder) == 2
    assert words in capsys.readouterr().err and not out.exists()


def test_missing_and_broken_images_are_refused_before_anything_is_written(tmp_path, capsys):
    testcase, out = write_case(tmp_path), tmp_path / "x.pth"
    broken = tmp_path / "dataset/synth/media/1/0.png"
    broken.write_bytes(b"junk")
    assert embed(testcase, out) == 2
    assert f"{broken}: 4 bytes are no image" in capsys.readouterr().err
    broken.unlink()
    assert embed(testcase, out) == 2
    assert f"entry 1, media: no file {broken}; expected --images" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob("*.tmp"))


POOL = ["00000/b.png", "00000/c.jpeg", "00001/a.PNG", "00001/deep/er.png", "z.png"]


def write_pool(folder: Path) -> Path:
    """Write images in folders, not in the order of their paths, and two files that are no images."""
    own = noise_images(50, size=16)[-len(POOL) :]  # not those of the test case
    for path, image in zip(reversed(POOL), own, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png(image))
    (folder / "captions.txt").write_text("a\n")
    (folder / ".hidden.png").write_bytes(b"junk")
    return folder


def embed_pool(folder: Path, out: Path, *more: str) -> int:
    options = ["--pool", str(folder), "--encoder", "pixel", "--out", str(out), "--set", "size=4"]
    return main(["abc", "embed", *options, *more])


def own_features(folder: Path, paths: list[str]) -> np.ndarray:
    """Return the features of images by the encoder itself."""
    encoder = families.load("encoders", "pixel", {"size": 4})
    features: np.ndarray = encoder.encode(np.asarray(Image.open(folder / path)) for path in paths)
    return features


def test_features_of_a_pool_are_in_the_order_of_the_paths(tmp_path, capsys, monkeypatch):
    folder, out = write_pool(tmp_path / "laion"), tmp_path / "feats" / "laion_subset.pth"
    assert embed_pool(folder, out) == 0
    assert f"5 images, 48 features\nwrote {out}\n" in capsys.readouterr().out
    content = torch.load(out, weights_only=True)
    assert list(content) == ["feats", "paths"] and content["paths"] == POOL
    assert content["feats"].dtype == torch.float32
    assert np.array_equal(content["feats"].numpy(), own_features(folder, POOL))
    assert [path.name for path in out.parent.iterdir()] == ["laion_subset.pth"]
    monkeypatch.setattr(encode, "CHUNK", 2)
    assert embed_pool(folder, tmp_path / "cut.pth", "--threads", "2") == 0
    assert (tmp_path / "cut.pth").stat().st_size > 0
    cut = torch.load(tmp_path / "cut.pth", weights_only=True)
    assert torch.equal(cut["feats"], content["feats"]) and cut["paths"] == POOL


def test_a_list_chooses_the_images_of_a_pool_and_their_order(tmp_path):
    folder = write_pool(tmp_path / "laion")
    listed = tmp_path / "list.txt"
    listed.write_text("z.png\r\n\n00001/deep/er.png\n00000/b.png\n")
    assert embed_pool(folder, tmp_path / "x.pth", "--list", str(listed)) == 0
    content = torch.load(tmp_path / "x.pth", weights_only=True)
    assert content["paths"] == ["z.png", "00001/deep/er.png", "00000/b.png"]
    assert np.array_equal(content["feats"].numpy(), own_features(folder, content["paths"]))


def test_the_evaluation_ranks_in_an_embedded_pool(tmp_path):
    """Ranks among five distractors, computed from the encoder's features."""
    folder, testcase = write_pool(tmp_path / "laion"), write_case(tmp_path)
    pool, test, found = tmp_path / "laion_subset.pth", tmp_path / "test_case.pth", tmp_path / "found"
    assert embed_pool(folder, pool) == embed(testcase, test, "--set", "size=4") == 0
    options = ["--pool", str(pool), "--test", str(test), "--recall-ks", "1", "--out", str(found)]
    assert main(["abc", "evaluate", *options]) == 0

    def unit(root: Path, paths: list[str]) -> np.ndarray:
        features = own_features(root, paths).astype(np.float64)
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    entries = json.loads(testcase.read_text())
    expected = {}
    for entry in entries:
        for query in (path for paths in entry["synth"].values() for path in paths):
            vector = unit(tmp_path, [query])[0]
            own, others = (unit(*where) @ vector for where in ((tmp_path, entry["exemplar"]), (folder, POOL)))
            expected[query] = 1 + int((others > own.max()).sum())
    rows = pq.read_table(found / "per_query.parquet").to_pylist()
    assert {row["query_path"]: row["best_rank"] for row in rows} == expected and len(expected) == 12


def test_the_features_of_a_pool_are_not_kept_in_memory(tmp_path):
    rng = np.random.default_rng(1)
    block = rng.standard_normal((1024, 256)).astype(np.float32)  # 1 MB
    parts = (([f"{part}/{row}" for row in range(1024)], block + part) for part in range(32))
    tracemalloc.start()
    feature_files.write_pool(parts, 256, tmp_path / "p.pth")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6, peak
    content = torch.load(tmp_path / "p.pth", weights_only=True, mmap=True)
    assert content["feats"].shape == (32 * 1024, 256) and content["paths"][-1] == "31/1023"
    assert np.array_equal(content["feats"][-1024:].numpy(), block + 31)


def test_a_broken_image_of_a_pool_is_refused_and_nothing_is_written(tmp_path, capsys):
    folder, out = write_pool(tmp_path / "laion"), tmp_path / "feats" / "x.pth"
    out.parent.mkdir()
    out.write_bytes(b"as before")
    (folder / "00001/a.PNG").write_bytes(b"junk")
    assert embed_pool(folder, out) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {folder}/00001/a.PNG: 4 bytes are no image")
    (folder / "00001/a.PNG").unlink()
    (folder / "00001/a.PNG").symlink_to("nowhere.png")
    assert embed_pool(folder, out) == 2
    assert f"error: {folder}/00001/a.PNG: cannot be read" in capsys.readouterr().err.splitlines()[-1]
    assert out.read_bytes() == b"as before" and list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--pool none --out x.pth", "--pool: none is no folder"),
        ("--pool empty --out x.pth", "--pool: 0 images below empty; expected files .bmp"),
        ("--pool empty --out x.npy", "--out: x.npy, expected a file NAME.pth"),
        ("--pool empty --images d --out x.pth", "--images: d with --pool"),
        ("--testcase t.json --out x.pth", "--images: missing"),
        ("--testcase t.json --images d --out x.npy", "--out: x.npy, expected a file NAME.pth"),
        ("--testcase t.json --images d --out empty", "--out: empty, expected a file NAME.pth"),
        ("--testcase t.json --images d --out x.pth --threads -2", "--threads: -2, expected a number of"),
        ("--testcase t.json --images d --list l --out x.pth", "--list: l with --testcase"),
    ],
)
def test_options_that_exclude_each_other_are_refused(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["abc", "embed", "--encoder", "pixel", *options.split()]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("what", [[], ["--pool", "p", "--testcase", "t.json", "--images", "i"]])
def test_either_pool_or_testcase_is_required(what, capsys):
    with pytest.raises(SystemExit):
        main(["abc", "embed", "--encoder", "pixel", "--out", "x.pth", *what])
    assert "--pool" in capsys.readouterr().err


def test_blank_images_stay_and_are_named(tmp_path, capsys):
    folder, out = write_pool(tmp_path / "laion"), tmp_path / "pool.pth"
    assert embed_pool(folder, out) == 0 and "blank," not in capsys.readouterr().out
    for number in range(7):
        Image.new("RGB", (16, 16), (number, number, number)).save(folder / f"{number}.png")
    assert embed_pool(folder, out, "--threads", "2") == 0
    told = "blank, one colour all over, so that their features say nothing: 7 images: "
    assert f"{told}0.png, 1.png, 2.png, 3.png, 4.png and 2 more\nwrote" in capsys.readouterr().out
    assert torch.load(out, weights_only=True)["paths"] == sorted([*POOL, *(f"{n}.png" for n in range(7))])
    testcase = write_case(tmp_path)
    Image.new("RGB", (16, 16)).save(tmp_path / "dataset/synth/media/1/0.png")
    assert embed(testcase, tmp_path / "x.pth") == 0
    assert ": 1 images: dataset/synth/media/1/0.png\nwrote" in capsys.readouterr().out
    assert len(torch.load(tmp_path / "x.pth", weights_only=True)["synth_tensors"]["media"]) == 6
