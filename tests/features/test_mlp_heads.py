"""Mlp heads: mapping compared with torch, exact products, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attrib_core.common.errors import InputError
from attrib_core.features.heads import head_types, heads
from tests.features.mapper_fixtures import unit


@pytest.mark.parametrize("whitened", [False, True])
def test_an_mlp_against_plain_arithmetic_and_torch(whitened: bool) -> None:
    random = np.random.default_rng(4)

    def layer(out: int, dim: int) -> heads.Linear:
        return heads.Linear(*(random.normal(size=size).astype(np.float32) for size in ((out, dim), (out,))))

    skip = layer(9, 9).weight if whitened else None
    head, rows = heads.Mlp(layer(30, 9), layer(9, 30), skip), random.normal(size=(11, 9)).astype(np.float32)
    inner, outer = (torch.nn.Linear(*shape[::-1]) for shape in ((30, 9), (9, 30)))
    for module, values in ((inner, head.inner), (outer, head.outer)):
        module.load_state_dict(
            {"weight": torch.from_numpy(values.weight), "bias": torch.from_numpy(values.bias)}
        )
    with torch.no_grad():
        x = torch.from_numpy(rows)
        straight = x if skip is None else x @ torch.from_numpy(skip).T
        expected = torch.nn.functional.normalize(straight + outer(torch.relu(inner(x))), dim=1).numpy()
    assert np.allclose(heads.apply(rows, head), expected, atol=2e-6)
    silent = heads.Mlp(heads.Linear(head.inner.weight, np.full(30, -1e3, np.float32)), head.outer, skip)
    lone = heads.apply(rows, silent)  # no unit answers: what is left is the straight way and the bias
    wanted = (rows if skip is None else rows @ skip.T).astype(np.float64) + head.outer.bias
    assert np.allclose(lone, unit(wanted), atol=1e-6)


def test_products_stay_finite_for_rows_and_weights_of_zeros() -> None:
    rows = np.zeros((2, 3))
    found = head_types.exact_product(rows, np.zeros(2), np.ones((4, 3), np.float32))
    assert (
        not found.any() and not head_types.exact_product(np.ones((2, 3)), np.ones(2), np.zeros((4, 3))).any()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner.bias": np.zeros(3, np.float32)}, "inner has weight"),
        (
            {"outer.weight": np.zeros((6, 4), np.float32)},
            "has shapes .*expected .hidden, dim., .dim, hidden.",
        ),
        ({"skip.weight": np.zeros((5, 6), np.float32)}, "has shapes"),
        ({"outer.weight": None}, "expected for real_mapper weight, bias .linear. or weights"),
        ({"outer.bias": np.full(6, np.inf, np.float32)}, "non-finite"),
    ],
)
def test_a_file_of_mlps_that_does_not_fit_is_refused(
    change: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    own: dict[str, np.ndarray | None] = {
        "inner.weight": np.ones((5, 6), np.float32), "inner.bias": np.ones(5, np.float32),
        "outer.weight": np.ones((6, 5), np.float32), "outer.bias": np.ones(6, np.float32),
    }  # fmt: skip
    content = {
        f"{side}.{name}": value for side in ("real_mapper", "synth_mapper") for name, value in own.items()
    }
    content |= {f"real_mapper.{name}": value for name, value in change.items()}
    save_file({name: value for name, value in content.items() if value is not None}, tmp_path / "m")
    with pytest.raises(InputError, match=message):
        heads.load(tmp_path / "m")


def test_two_heads_of_different_types_are_refused(tmp_path: Path) -> None:
    square = heads.Linear(np.eye(4, dtype=np.float32), np.zeros(4, np.float32))
    heads.save(tmp_path / "m", heads.Heads(square, heads.Channel(np.ones(4, np.float32))), {})
    with pytest.raises(InputError, match="expected those of two heads of one type"):
        heads.load(tmp_path / "m")
