"""The encoder family `torchscript`: features are the file's output; only files with the stated checksum are opened."""

from __future__ import annotations

import numpy as np
import pytest

from attrib_core.common import families, hashing
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config
from tests.features.embedding_fixtures import noise_images
from tests.features.encoders_fixtures import tiny_torchscript


def test_features_are_the_files_output_on_normalised_pixels(load_encoder, weights_folder):
    import torch

    network = torch.jit.load(str(tiny_torchscript(weights_folder)))
    images = noise_images(3, size=16)
    mean, std = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
    values = torch.from_numpy((images.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = [one.numpy() for one in network(values)]
    for output in (0, 1):
        found = load_encoder("torchscript", output=output)
        assert np.allclose(found.encode(images), expected[output], rtol=1e-5, atol=1e-6)
        assert found.identity["output"] == output
    assert np.array_equal(expected[1], 2 * expected[0])


def test_a_file_with_another_checksum_is_not_opened(load_encoder, weights_folder, monkeypatch):
    import torch

    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the file was opened"))
    found = hashing.file_digest(tiny_torchscript(weights_folder))
    with pytest.raises(
        InputError, match=f"^sha256: .* has {found}, the config states {'0' * 64}; .* not run"
    ):
        load_encoder("torchscript", sha256="0" * 64)


def test_missing_outputs_are_named(load_encoder):
    with pytest.raises(InputError, match=r"output: None, but the network gives 2 outputs, numbered from 0"):
        load_encoder("torchscript", output=None)
    with pytest.raises(InputError, match="output: 'style', but the network gives 2 outputs"):
        load_encoder("torchscript", output="style")


def test_missing_files_are_named(load_encoder):
    with pytest.raises(InputError, match="weights: no file 'none.pt'"):
        load_encoder("torchscript", weights="none.pt")
    with pytest.raises(InputError, match="weights: 'hub:a/b'; a TorchScript file is named by its path"):
        load_encoder("torchscript", weights="hub:a/b")


def test_an_error_of_the_program_is_one_line(tmp_path):
    import torch

    class Dark(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if images.max().item() > 1.5:
                raise RuntimeError("too bright")
            return images.mean(dim=(2, 3))

    path = tmp_path / "dark.pt"
    torch.jit.script(Dark()).save(str(path))
    options = {"weights": str(path), "sha256": hashing.file_digest(path), "size": 16}
    encoder = families.load("encoders", "torchscript", options)
    assert encoder.encode([np.zeros((16, 16, 3), np.uint8)]).shape == (1, 3)
    with pytest.raises(
        InputError, match=r"dark.pt fails on images of shape \(16, 3, 16, 16\): .*too bright$"
    ):
        encoder.encode([np.full((16, 16, 3), 255, np.uint8)])


def test_the_config_must_state_a_checksum():
    section = {"family": "torchscript", "weights": "a.pt", "size": 288}
    with pytest.raises(InputError, match="encoders.x.sha256: .*torchscript.* needs this option"):
        load_config({"encoders": {"x": section}})
    with pytest.raises(InputError, match="encoders.x.sha256: 'abc' is wrong"):
        load_config({"encoders": {"x": section | {"sha256": "abc"}}})
