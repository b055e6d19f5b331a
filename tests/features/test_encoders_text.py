"""The encoder family `text`: each library's own tokenizer and forward, and what it is given of a table."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain
from attrib_core.diffusion.base_models import bundled
from attrib_core.features.embedding import embedding_tables, encoding
from attrib_core.features.encoders import fusion
from attrib_core.features.encoders.text import encoder as text
from attrib_core.storage import tables
from tests.features.embedding_fixtures import noise_images, png
from tests.features.encoders_fixtures import (
    TINY_CLIP,
    load_small,
    tiny_open_clip,
    tiny_transformers,
    tiny_weights,
)

BUNDLED = {"family": "bundled"}
TEXTS = ["an owl in the snow", "", "a train", "a cat beside a house and " * 20]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="session")
def load(folder: Path) -> Any:
    """Loads a family with options that make it small."""
    return functools.partial(load_small, tiny_weights(folder))


def of_folder(path: Path, **options: Any) -> Any:
    return families.load("encoders", "text", {"weights": str(path)} | options, device="cpu")


def close(found: np.ndarray, expected: Any) -> bool:
    return bool(np.allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5))


def test_of_a_base_model_it_is_the_pooled_state_of_its_text_encoder(load):
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(bundled.FOLDER / "tokenizer")
    model = CLIPTextModel.from_pretrained(bundled.FOLDER / "text_encoder").eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).pooler_output
    encoder = load("text")
    assert encoder.reads == "words" and encoder.dim == expected.shape[1] == 96
    assert close(encoder.encode(TEXTS), expected)
    assert families.dim({"family": "text", "base_model": BUNDLED}, "encoders.x") == 96


def test_of_sdxl_it_is_the_projected_state_of_the_second(tmp_path):
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    shutil.copytree(bundled.FOLDER, tmp_path / "xl")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 2196, "bos_token_id": 2194, "eos_token_id": 2, "pad_token_id": 2195}
    torch.manual_seed(5)
    own = CLIPTextConfig(**sizes, **ids, max_position_embeddings=24, projection_dim=10)
    model = CLIPTextModelWithProjection(own).eval()
    model.save_pretrained(tmp_path / "xl" / "text_encoder_2")
    CLIPTextModel(own).save_pretrained(tmp_path / "xl" / "text_encoder")
    shutil.copytree(bundled.FOLDER / "tokenizer", tmp_path / "xl" / "tokenizer_2")
    index = json.loads((tmp_path / "xl" / "model_index.json").read_text())
    (tmp_path / "xl" / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "StableDiffusionXLPipeline"})
    )
    base = {"family": "folder", "path": str(tmp_path / "xl")}
    encoder = families.load("encoders", "text", {"base_model": base}, device="cpu")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "xl" / "tokenizer_2")
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        assert close(encoder.encode(TEXTS), model(inputs.input_ids).text_embeds)
    assert encoder.dim == 10
    assert {path.parent.name for path in text.files(base_model=base, weights=None, architecture=None)} == {
        "xl", "text_encoder_2", "tokenizer_2",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_of_transformers_it_is_the_librarys_tokenizer_and_text_features(folder, kind):
    import torch
    import transformers

    path = tiny_transformers(folder, kind)
    tokenizer, model = (
        library.from_pretrained(path) for library in (transformers.AutoTokenizer, transformers.AutoModel)
    )
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    if kind == "siglip":
        del inputs["attention_mask"]  # SigLIP is trained on padded texts without a mask
    with torch.inference_mode():
        found = model.eval().get_text_features(**inputs)
        expected = found if isinstance(found, torch.Tensor) else found.pooler_output
    encoder = of_folder(path)
    assert close(encoder.encode(TEXTS), expected)
    assert encoder.dim == {"clip": 16, "siglip": 32}[kind]


def test_of_open_clip_it_is_the_librarys_tokenizer_and_text_features(folder):
    import open_clip
    import torch

    model, _, _ = open_clip.create_model_and_transforms(TINY_CLIP, pretrained=str(tiny_open_clip(folder)))
    with torch.inference_mode():
        expected = model.eval().encode_text(open_clip.get_tokenizer(TINY_CLIP)(TEXTS))
    encoder = of_folder(tiny_open_clip(folder), architecture=TINY_CLIP)
    assert close(encoder.encode(TEXTS), expected) and encoder.dim == 24
    assert encoder.identity["architecture"] == TINY_CLIP


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "coca_ViT-B-32"])
def test_whole_architectures_of_open_clip_give_their_librarys_text_features(tmp_path, architecture):
    import open_clip
    import torch

    torch.manual_seed(6)
    model = open_clip.create_model(architecture, load_weights=False).eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer(architecture)(TEXTS), normalize=False)
    found = of_folder(tmp_path / "w.pt", architecture=architecture).encode(TEXTS)
    assert close(found, expected)


def test_the_image_tower_is_neither_needed_nor_counted(folder, tmp_path):
    import torch

    state = torch.load(tiny_open_clip(folder), weights_only=True)
    kept = {f"module.{name}": value for name, value in state.items() if not name.startswith("visual.")}
    torch.save(kept, tmp_path / "tower.pt")
    found = of_folder(tmp_path / "tower.pt", architecture=TINY_CLIP, prefix="module.").encode(TEXTS)
    assert np.array_equal(found, of_folder(tiny_open_clip(folder), architecture=TINY_CLIP).encode(TEXTS))
    del kept["module.text_projection"]
    torch.save(kept, tmp_path / "tower.pt")
    with pytest.raises(
        InputError, match="does not fit the network in 1 tensors, .*: text_projection missing"
    ):
        of_folder(tmp_path / "tower.pt", architecture=TINY_CLIP, prefix="module.")


def configured(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain(load_config({"encoders": {"x": {"family": "text"} | options}}))
    return dict(found["encoders"]["x"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "encoders.x.weights: null; name weights, or a base_model"),
        ({"base_model": BUNDLED, "weights": "w"}, "encoders.x.base_model: beside weights"),
        ({"weights": "w", "prefix": "module."}, "encoders.x.prefix: 'module.', but architecture is null"),
        ({"base_model": {"path": "x"}}, "encoders.x.base_model.family: this key is needed"),
        (
            {"base_model": {"family": "bundle"}},
            "encoders.x.base_model.family: no family 'bundle', did you mean",
        ),
    ],
)
def test_options_that_name_no_tower_are_refused_with_the_config(options, words):
    with pytest.raises(InputError, match=words):
        configured(**options)


def test_defaults_are_filled_in():
    assert configured(base_model=BUNDLED)["base_model"] == BUNDLED
    assert configured(weights="w")["architecture"] is None


def test_models_and_tokenizers_that_do_not_fit_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="a model of type 'vit', choose one of 'clip'"):
        of_folder(with_tokenizer(tiny_transformers(folder, "vit"), tmp_path / "vit"))
    bare = shutil.copytree(tiny_transformers(folder, "clip"), tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(InputError, match="bare holds no tokenizer, expected one of tokenizer.json"):
        of_folder(bare)
    with pytest.raises(InputError, match="architecture: 'ViT-B-33' is not in open_clip, did you mean"):
        of_folder(tiny_open_clip(folder), architecture="ViT-B-33")
    with pytest.raises(InputError, match="'xlm-roberta-base' of transformers, which open_clip downloads"):
        of_folder(tiny_open_clip(folder), architecture="xlm-roberta-base-ViT-B-32")


def test_a_tokenizer_of_the_hub_that_is_not_cached_is_not_downloaded(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="'ViT-B-16-SigLIP' is not in the hub's cache .*hf download timm/"):
        of_folder(tiny_open_clip(folder), architecture="ViT-B-16-SigLIP")


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    path = shutil.copytree(tiny_transformers(folder, "clip"), tmp_path / "clip")
    told = json.loads((path / "tokenizer.json").read_text())
    told["added_tokens"] += [told["added_tokens"][0] | {"id": 2196, "content": "words"}]
    (path / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="refuses the ids of the tokenizer in .*clip, which has 2197"):
        of_folder(path)


def with_tokenizer(path: Path, target: Path) -> Path:
    shutil.copytree(path, target)
    shutil.copy(bundled.FOLDER / "tokenizer" / "tokenizer.json", target)
    return target


def test_identity_and_fingerprint_cover_the_tower_and_its_tokenizer_alone(load, folder, tmp_path):
    base = shutil.copytree(bundled.FOLDER, tmp_path / "base")
    options = {"base_model": {"family": "folder", "path": str(base)}}

    def identity() -> dict[str, Any]:
        found: dict[str, Any] = families.load("encoders", "text", options, device="cpu").identity
        return found

    before = identity()
    assert sorted(before["files_sha256"]) == [
        "base/model_index.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ]
    (base / "unet" / "config.json").write_text((base / "unet" / "config.json").read_text() + "\n")
    assert identity() == before
    (base / "tokenizer" / "tokenizer_config.json").write_text(
        (base / "tokenizer" / "tokenizer_config.json").read_text() + "\n"
    )
    assert identity() != before
    assert text.others(base_model=BUNDLED) == ["base_models/bundled"]
    assert text.others(base_model=None) == []


def test_a_fusion_counts_the_files_and_the_code_of_its_text_part():
    parts = {"look": {"family": "pixel"}, "words": {"family": "text", "base_model": BUNDLED}}
    section = plain(load_config({"encoders": {"x": {"family": "fusion", "parts": parts}}}))["encoders"]["x"]
    _, options = families.split(section)
    assert fusion.others(**options) == ["base_models/bundled"]
    read = {path.relative_to(bundled.FOLDER).as_posix() for path in fusion.files(**options)}
    assert "text_encoder/model.safetensors" in read and "tokenizer/tokenizer.json" in read
    assert not [name for name in read if name.startswith(("unet", "vae"))]
    assert families.dim(section, "encoders.x") == 768 + 96


# What an encoder that reads words is given of a table.


def write_said(path: Path, said: list[str | None], *, images: bool = True) -> Path:
    data = [png(one) for one in noise_images(len(said))]
    cells = pa.array([{"bytes": one, "path": None} for one in data], type=tables.IMAGE)
    columns = {"image_id": [f"p{number}" for number in range(len(said))], "said": pa.array(said, pa.string())}
    pq.write_table(pa.table(columns | ({"image": cells} if images else {})), path)
    return path


def embedded(path: Path, encoder: Any, threads: int = 0) -> np.ndarray:
    parts = list(encoding.embed(path, ids="image_id", words="said", encoder=encoder, threads=threads))
    return np.concatenate([tables.vectors(part["embedding"]) for part in parts])


def test_words_are_given_row_by_row_in_any_cut_without_the_token(load, tmp_path, monkeypatch):
    said = [f"a <new1> {noun} in the snow" for noun in ("animal", "fruit", "house")] + ["an owl", "", "a cat"]
    given = ["an animal in the snow", "a fruit in the snow", "a house in the snow", "an owl", "", "a cat"]
    encoder = load("text")
    expected = encoder.encode(given)
    path = write_said(tmp_path / "a.parquet", said)
    assert np.array_equal(embedded(path, encoder), expected)
    monkeypatch.setattr(encoding, "CHUNK", 1)
    assert np.array_equal(embedded(path, encoder, threads=3), expected)
    first, second = (
        write_said(tmp_path / f"{n}.parquet", rows) for n, rows in enumerate([said[:2], said[2:]])
    )
    assert np.array_equal(np.concatenate([embedded(one, encoder) for one in (first, second)]), expected)
    alone = write_said(tmp_path / "alone.parquet", said, images=False)
    assert np.array_equal(embedded(alone, encoder), expected)  # images are not asked for


@pytest.mark.parametrize("threads", [0, 3])
def test_a_fusion_is_given_images_and_words(load, tmp_path, threads):
    said = ["an owl", "a cat", "", "a train"]
    parts = {
        "look": {"family": "pixel", "size": 3},
        "words": {"family": "text", "base_model": BUNDLED, "weight": 0.25},
    }
    encoder = load("fusion", parts=parts)
    assert encoder.reads == "both" and encoder.dim == 27 + 96
    found = embedded(write_said(tmp_path / "a.parquet", said), encoder, threads)
    look = families.load("encoders", "pixel", {"size": 3}).encode(noise_images(4))
    words = load("text").encode(said)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (look, words)]
    assert np.allclose(found, np.concatenate([unit[0], unit[1] / 2], axis=1), atol=1e-6)
    texts = load("fusion", parts={"a": parts["words"], "b": parts["words"]})
    assert texts.reads == "words"
    assert embedded(write_said(tmp_path / "b.parquet", said, images=False), texts).shape == (4, 192)
    assert load("fusion", parts={"a": parts["look"]}).reads == "images"


def test_a_table_without_words_is_refused_where_they_are_read(load, tmp_path):
    path = write_said(tmp_path / "a.parquet", ["an owl", None])
    with pytest.raises(
        InputError, match="a.parquet: image 'p1' has None as 'said'; expected words, '' for none"
    ):
        embedded(path, load("text"))
    assert embedded(path, families.load("encoders", "pixel", {"size": 2})).shape == (2, 12)
    with pytest.raises(InputError, match=r"a.parquet: missing columns \['caption'\]"):
        list(encoding.embed(path, ids="image_id", words="caption", encoder=load("text")))
    with pytest.raises(InputError, match="a.parquet: encoder 'text' reads words; name their column"):
        list(encoding.embed(path, ids="image_id", encoder=load("text")))


def test_an_encoder_that_reads_something_else_is_refused(tmp_path):
    class Odd:
        reads, dim, identity = "sounds", 1, {"family": "odd"}

    with pytest.raises(InputError, match="encoder 'odd' reads 'sounds', expected one of images, words, both"):
        embedded(write_said(tmp_path / "a.parquet", ["a"]), Odd())


def test_the_script_gives_the_words_of_its_column(run_script, tmp_path, load):
    path = write_said(tmp_path / "in.parquet", ["an owl", "a <new1> owl"])
    run_script(
        "embed",
        input={"images": str(path)},
        output={"embeddings": str(tmp_path / "out" / "part.parquet")},
        params={
            "ids": "image_id", "words": "said", "feature_code": "x", "run": str(tmp_path / "results" / "run"),
            "pieces": {"by": None}, "encoder": {"family": "text", "base_model": BUNDLED},
        },
        wildcards={"encoder": "words"},
    )  # fmt: skip
    _, features = embedding_tables.read(tmp_path / "out" / "part.parquet")
    assert np.array_equal(features, load("text").encode(["an owl", "an owl"]))
