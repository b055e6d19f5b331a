"""The encoder family `open_clip`: features equal the library's; weights that do not fit are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from attrib_core.common.errors import InputError
from tests.features.encoders_fixtures import TINY_CLIP, tiny_open_clip


def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((40, 32), (31, 77), (64, 64))]


def test_features_equal_the_librarys_image_embedding(load_encoder, weights_folder):
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(
        TINY_CLIP, pretrained=str(tiny_open_clip(weights_folder))
    )
    batch = torch.stack([transform(Image.fromarray(one)) for one in images()])
    with torch.inference_mode():
        expected = model.eval().encode_image(batch).numpy()
    encoder = load_encoder("open_clip")
    assert encoder.dim == 24 and encoder.identity["size"] == 32
    assert np.allclose(encoder.encode(images()), expected, rtol=1e-5, atol=1e-6)


def test_another_size_and_fit_reach_the_network(load_encoder, weights_folder):
    """Positional embeddings are for 32 pixels, so another size does not fit and is refused."""
    with pytest.raises(InputError, match="positional_embedding has shape .* expected"):
        load_encoder("open_clip", size=64)
    squashed = load_encoder("open_clip", fit="squash").encode(images())
    assert not np.allclose(squashed, load_encoder("open_clip").encode(images()))


def test_weights_and_architectures_that_do_not_fit_are_named(load_encoder, weights_folder, tmp_path):
    import torch

    with pytest.raises(InputError, match=r"architecture: 'ViT-B-33' is not in open_clip, did you mean"):
        load_encoder("open_clip", architecture="ViT-B-33")
    with pytest.raises(InputError, match="weights: no file 'none.pt'"):
        load_encoder("open_clip", weights="none.pt")
    state = torch.load(tiny_open_clip(weights_folder), weights_only=True)
    del state["visual.proj"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match="w.pt does not fit the network in 1 tensors, the first: proj missing"
    ):
        load_encoder("open_clip", weights=str(tmp_path / "w.pt"))


def test_the_text_tower_is_not_needed(load_encoder, weights_folder, tmp_path):
    import torch

    state = torch.load(tiny_open_clip(weights_folder), weights_only=True)
    kept = {f"module.{name}": value for name, value in state.items() if name.startswith("visual.")}
    torch.save({"state_dict": kept}, tmp_path / "tower.pt")
    found = load_encoder("open_clip", weights=str(tmp_path / "tower.pt"), prefix="module.").encode(images())
    assert np.array_equal(found, load_encoder("open_clip").encode(images()))
