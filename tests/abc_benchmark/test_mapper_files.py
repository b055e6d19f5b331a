"""Mapper checkpoints: read and written as torch modules compute them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.abc_benchmark import mapper_export
from attrib_core.abc_benchmark.mapper_files import UNTUNED, read_mapper
from attrib_core.common.errors import InputError
from attrib_core.storage import torch_files
from tests.abc_benchmark.abc_fixtures import Channel, mlp, save_mapper, unit
from tests.abc_benchmark.tune_fixtures import HEADS
from tests.features.mapper_fixtures import DIM, tuned, tuning_data


def test_an_mlp_of_three_layers_computes_what_torch_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    heads = [mlp(rng, 16, layers=3) for _ in range(2)]
    save_mapper(heads, tmp_path / "m.pth")
    found = read_mapper(tmp_path / "m.pth")
    x = rng.standard_normal((9, 16)).astype(np.float32)
    for head, module in zip((found.real, found.synth), heads, strict=True):
        mapped = head(x)
        np.testing.assert_allclose(
            mapped / np.linalg.norm(mapped, axis=1, keepdims=True), unit(x, module), atol=1e-12
        )


def test_biases_of_an_mlp_are_applied(tmp_path: Path) -> None:
    """Before a batch norm and in the last layer, where none follows."""
    torch.manual_seed(4)
    heads = [
        torch.nn.Sequential(
            torch.nn.Linear(16, 12), torch.nn.BatchNorm1d(12), torch.nn.ReLU(), torch.nn.Linear(12, 16)
        )
        for _ in range(2)
    ]
    for head in heads:
        torch.nn.init.normal_(head[1].running_mean)
        torch.nn.init.normal_(head[0].bias)
    save_mapper(heads, tmp_path / "m.pth")
    found = read_mapper(tmp_path / "m.pth")
    x = torch.randn(9, 16)
    for head, module in zip((found.real, found.synth), heads, strict=True):
        expected = module.double().eval()(x.double()).detach().numpy()
        np.testing.assert_allclose(head(x.numpy()), expected, atol=1e-12)


def test_the_untuned_mapper_is_the_identity() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert np.array_equal(UNTUNED.real(x), x.astype(np.float64))


LINEAR = {"weight": torch.ones(6, 6), "bias": torch.ones(6)}
NORM = {
    "1.running_mean": torch.ones(4),
    "1.running_var": torch.ones(4),
    "1.num_batches_tracked": torch.tensor(3),
}
FLAWED: list[tuple[dict[str, Any], list[str]]] = [
    ({"synth_mapper": [1]}, ["synth_mapper", "a list of 1"]),
    ({"synth_mapper": {"weight": torch.ones(6, 6)}}, ["synth_mapper", "['weight']", "linear"]),
    ({"synth_mapper": LINEAR | {"bias": torch.ones(5)}}, ["synth_mapper", "(6, 6)", "(5,)"]),
    ({"synth_mapper": LINEAR | {"bias": [1.0]}}, ["synth_mapper.bias", "a list of 1"]),
    ({"real_mapper": LINEAR | {"bias": torch.full((6,), np.nan)}}, ["real_mapper.bias", "not finite"]),
    ({"synth_mapper": {"weight": torch.ones(5, 6), "bias": torch.ones(5)}}, ["6 to 6", "6 to 5", "the same"]),
    ({"real_mapper": {"0.weight": torch.ones(5, 6)} | NORM}, ["real_mapper.1", "batch norm of 4"]),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "3.weight": torch.ones(2, 5)}},
        ["real_mapper.3.weight", "expected 4"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "1.running_mean": torch.ones(4)}},
        ["real_mapper", "running_var", "statistics"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6)} | NORM | {"1.running_var": torch.ones(3)}},
        ["real_mapper.1.running_var", "batch norm of 3", "4 outputs"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6)} | NORM | {"1.running_var": -torch.ones(4)}},
        ["real_mapper.1.running_var", "-1", "at least 0"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "0.bias": torch.ones(3)}},
        ["real_mapper.0.bias", "(3,)"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "2.gain": torch.ones(4)}},
        ["real_mapper", "['2.gain']", "neither to a linear layer"],
    ),
    ({"synth_mapper": {"weights": torch.ones(2, 3)}}, ["synth_mapper.weights", "(2, 3)", "(1, dim)"]),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "٤.weight": torch.ones(4, 4)}},
        ["['٤.weight']", "neither"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "02.weight": torch.ones(4, 4)}},
        ["['02.weight']", "neither"],
    ),
    (
        {"real_mapper": {"0.weight": torch.ones(4, 6), "1" * 5000 + ".weight": torch.ones(4, 4)}},
        ["['111", "…, which belong", "neither"],
    ),
    ({"real_mapper": {"a\n" * 5000: torch.ones(4, 4)}}, ["real_mapper has ['a\\na", "…, expected"]),
    ({"real_mapper": {"a\n" * 5000: None}}, [r"real_mapper.a\na", "… is missing"]),
    ({"real_mapper": torch.nn.Linear(2, 2)}, ["needs code to unpickle", "Linear"]),
]
CHECKPOINTS = [
    ({"real_mapper": LINEAR}, ["real_mapper and synth_mapper"]),
    *(({"real_mapper": LINEAR, "synth_mapper": LINEAR} | changes, words) for changes, words in FLAWED),
]


@pytest.mark.parametrize(("content", "words"), CHECKPOINTS)
def test_checkpoints_that_are_no_mappers_are_refused(content: Any, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mapper.pth"
    torch.save(content, path)
    with pytest.raises(InputError) as error:
        read_mapper(path)
    assert all(word in str(error.value) for word in [str(path), *words]), error.value
    assert "\n" not in str(error.value)


def test_a_message_names_only_some_keys_of_a_large_dict(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save({f"layer{number}.weight": torch.ones(1) for number in range(100)}, path)
    with pytest.raises(InputError, match=r"'layer15.weight'\] and 92 more, expected a dict with real_mapper"):
        read_mapper(path)


# --- the layout, as torch's classes have it


@pytest.mark.parametrize(("head", "shared"), HEADS)
@pytest.mark.parametrize("start", ["identity", "whitened"])
def test_an_exported_checkpoint_computes_what_the_heads_do(
    head: str, shared: bool, start: str, tmp_path: Path
) -> None:
    starts = ("identity",) if head == "channel" else (start,)
    options = {
        "epochs": 3,
        "learning_rate": 0.02,
        "starts": starts,
        "head": head,
        "shared": shared,
        "hidden": 7,
    }
    made = tuned(tuning_data(), **options).heads
    torch_files.save(mapper_export.checkpoint(made), tmp_path / "m.pth")
    read, rows = read_mapper(tmp_path / "m.pth"), tuning_data().distractors
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    for side, one, name in ((made.real, read.real, "real_mapper"), (made.synth, read.synth, "synth_mapper")):
        again = one(rows)
        again /= np.linalg.norm(again, axis=1, keepdims=True)
        assert np.allclose(again, side(rows), atol=2e-6)
        module = torch_module(head, hidden=2 * DIM + 7)
        shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        assert {key: tuple(value.shape) for key, value in state[name].items()} == shapes
        module.load_state_dict(state[name])  # strict
        with torch.no_grad():
            by_torch = torch.nn.functional.normalize(module.eval()(torch.from_numpy(rows)), dim=1).numpy()
        assert np.allclose(by_torch, side(rows), atol=2e-5)


def torch_module(head: str, hidden: int) -> torch.nn.Module:
    """Return a module of the class that the published code loads."""
    if head == "linear":
        return torch.nn.Linear(DIM, DIM)
    if head == "channel":
        return Channel(np.random.default_rng(0), DIM)
    return torch.nn.Sequential(
        torch.nn.Linear(DIM, hidden, bias=False), torch.nn.BatchNorm1d(hidden), torch.nn.ReLU(), torch.nn.Dropout(0.0),
        torch.nn.Linear(hidden, DIM, bias=False), torch.nn.BatchNorm1d(DIM, affine=False),
    )  # fmt: skip
