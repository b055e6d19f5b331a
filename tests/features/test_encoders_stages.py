"""Stages of a timm network as features, compared with plain sums over activations; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attrib_core.common.errors import InputError
from tests.features.embedding_fixtures import noise_images


def plain_means(values: np.ndarray, cells: int) -> list[float]:
    """Means of (channels, height, width) over a grid of cells x cells, channel by channel."""
    height, width = values.shape[1:]
    return [
        float(channel[row * height // cells : -(-(row + 1) * height // cells),
                      column * width // cells : -(-(column + 1) * width // cells)].mean())
        for channel in values.astype(np.float64)
        for row in range(cells)
        for column in range(cells)
    ]  # fmt: skip


def unit(values: Any) -> np.ndarray:
    return np.asarray(values) / np.linalg.norm(values)


def run(network: Any, image: np.ndarray) -> None:
    import torch

    with torch.inference_mode():
        network(torch.from_numpy(image).permute(2, 0, 1)[None])


@pytest.mark.parametrize(
    ("stages", "cells", "deviation"), [([3], 1, False), ([0, 2], 3, False), ([1, 2, 3], 1, True)]
)
def test_timm_stages_against_plain_sums_over_activations(load_encoder, stages, cells, deviation):
    """Activations of the deepest block of each resolution, recorded in a separate network."""
    network = load_encoder("timm")._network
    activations: dict[int, np.ndarray] = {}

    def record(module: Any, inputs: Any, values: Any) -> None:
        activations[32 // values.shape[-1]] = values[0].numpy()

    for block in network.blocks:
        block.register_forward_hook(record)
    encoder = load_encoder("timm", stages=stages, cells=cells, deviation=deviation)
    for image, features in zip(noise_images(3), encoder.encode(noise_images(3)), strict=True):
        activations.clear()
        mean, std = (np.float32(one) for one in (encoder.prepare.mean, encoder.prepare.std))
        network_input = (image.astype(np.float32) / 255 - mean) / std
        run(network, network_input)
        expected: list[np.ndarray] = []
        for stage in stages:
            values = activations[2 ** (stage + 1)]
            expected.append(unit(plain_means(values, cells)))
            if deviation:
                expected.append(unit([channel.std() for channel in values.astype(np.float64)]))
        assert np.allclose(features, np.concatenate(expected), rtol=1e-4, atol=1e-6)


def test_timm_computes_nothing_after_the_deepest_stage(load_encoder):
    encoder = load_encoder("timm", stages=[0, 1])
    ran: list[str] = []
    for name, module in encoder._network.network.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    blocks = encoder._network.network.blocks
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(f"block {number}"))
    encoder.encode(noise_images(1))
    assert "conv_stem" in ran and "block 0" in ran
    assert not {"conv_head", f"block {len(blocks) - 1}"} & set(ran)


def test_timm_stages_preserve_positions_by_their_cells(load_encoder):
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, :16] = noise_images(1, size=16)[0]
    for cells, least, most in [(1, 0.0, 0.1), (4, 0.2, 2.0)]:
        encoder = load_encoder("timm", stages=[0], cells=cells)
        here, there = encoder.encode([image, image[::-1, ::-1]])
        assert least < 1 - here @ there / np.linalg.norm(here) / np.linalg.norm(there) < most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": [1, 5]}, "stages: 'test_efficientnet' has no stage 5, only 0 to 4"),
        ({"stages": [2, 1]}, r"stages: \[2, 1\]; expected ascending and each once: \[1, 2\]"),
        ({"stages": []}, "encoders.stages"),
        ({"stages": [-1]}, "encoders.stages.0: -1"),
        ({"stages": [1, 4], "cells": 2}, "cells: 2 is more than stage 4 has at size 32, 1 on a side"),
        ({"cells": 2}, "cells: 2, but stages is null"),
        ({"deviation": True}, "deviation: true, but stages is null"),
    ],
)
def test_timm_refuses_stages_that_do_not_fit(load_encoder, options, message):
    with pytest.raises(InputError, match=message):
        load_encoder("timm", **options)


def test_timm_names_a_network_without_stages(load_encoder, monkeypatch):
    import timm

    monkeypatch.delattr(timm.models.EfficientNet, "forward_intermediates")
    with pytest.raises(
        InputError, match="stages: timm cannot return stages of 'test_efficientnet'; leave stages null"
    ):
        load_encoder("timm", stages=[1])


def test_timm_stages_of_a_transformer(load_encoder, tmp_path):
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "vit.safetensors")
    options = {"architecture": "test_vit", "weights": str(tmp_path / "vit.safetensors"), "size": 160}
    encoder = load_encoder("timm", **options, stages=[0, 3], cells=2, deviation=True)
    assert encoder.dim == 2 * 64 * (4 + 1) == encoder.encode(noise_images(2)).shape[1]
