"""Heads: mapping compared with plain arithmetic, bits that do not depend on other rows, and files of heads."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from attrib_core.common.errors import InputError
from attrib_core.features.heads import head_files, head_types, heads


def random_linear(dim: int, out: int | None = None, seed: int = 0) -> heads.Linear:
    random = np.random.default_rng(seed)
    shape = (out or dim, dim)
    return heads.Linear(
        random.normal(size=shape).astype(np.float32), random.normal(size=shape[0]).astype(np.float32)
    )


def random_rows(count: int, dim: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


@pytest.mark.parametrize(("dim", "out"), [(7, 7), (64, 20), (1280, 1280)])
def test_mapping_against_plain_arithmetic(dim, out):
    head, rows = random_linear(dim, out), random_rows(30, dim)
    expected = rows.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = heads.apply(rows, head)
    assert got.dtype == np.float32 and got.shape == (30, out)
    assert np.linalg.norm(got - expected, axis=1).max() < 5e-7


def test_mapping_is_torchs_linear_layer_and_normalize():
    import torch

    head, rows = random_linear(48, 16), random_rows(9, 48)
    layer = torch.nn.Linear(48, 16)
    layer.load_state_dict({"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)})
    with torch.no_grad():
        expected = torch.nn.functional.normalize(layer(torch.from_numpy(rows))).numpy()
    assert np.allclose(heads.apply(rows, head), expected, atol=1e-6)


@pytest.mark.parametrize("mapped", [True, False])
def test_bits_of_a_row_do_not_depend_on_other_rows(mapped):
    head = random_linear(200) if mapped else None
    rows = random_rows(heads.BLOCK_ROWS * 2 + 77, 200)
    together = heads.apply(rows, head)
    order = np.random.default_rng(2).permutation(len(rows))
    assert np.array_equal(heads.apply(rows[order], head), together[order])
    for start, stop in [(0, 1), (3, 4), (5, 300), (1000, len(rows))]:
        assert np.array_equal(heads.apply(rows[start:stop], head), together[start:stop])


def test_sums_are_exact_so_that_their_order_cannot_matter():
    """Compared before rounding to float32, which would hide nearly all differences."""
    head, rows = random_linear(300), random_rows(500, 300).astype(np.float64)
    norms = head_types.row_norms(rows)
    together = head(rows, norms)
    order = np.random.default_rng(2).permutation(len(rows))
    assert np.array_equal(head(rows[order], norms[order]), together[order])
    assert np.array_equal(head(rows[:1], norms[:1]), together[:1])
    length = np.sqrt(np.einsum("ij,ij->i", rows[:1], rows[:1]))[0]
    weight = head.weight.astype(np.float64)
    longest = np.sqrt(np.einsum("ij,ij->i", weight, weight)).max()
    point = [int(value) for value in np.rint(rows[0] / length * 2**26)]
    for out in range(5):
        grid = [int(value) for value in np.rint(weight[out] / longest * 2**26)]
        total = sum(
            one * other for one, other in zip(point, grid, strict=True)
        )  # Python's integers never round
        assert abs(total) < 2**53
        assert together[0, out] == total * (length * (longest / 2.0**52)) + head.bias[out]


def test_the_scale_of_head_and_rows_does_not_matter():
    head, rows = random_linear(30), random_rows(5, 30)
    no_bias = heads.Linear(head.weight, np.zeros(30, np.float32))
    large = heads.Linear(head.weight * np.float32(2.0**40), no_bias.bias)
    expected = heads.apply(rows, no_bias)
    assert np.array_equal(heads.apply(rows, large), expected)
    assert np.array_equal(heads.apply(rows * np.float32(2.0**-60), no_bias), expected)


def test_untuned_embeddings_are_only_normalised():
    rows = random_rows(10, 5) * 100
    both = heads.load(None)
    for side in (both.real, both.synth):
        assert np.allclose(np.linalg.norm(side(rows), axis=1), 1, atol=1e-6)
        assert np.allclose(side(rows), rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-7)
    assert both.real(np.empty((0, 5), np.float32)).shape == (0, 5)


def test_a_zero_or_non_finite_row_is_named():
    rows = random_rows(2000, 4)
    rows[1500] = 0
    with pytest.raises(InputError, match="embedding of row 1500 is zero"):
        heads.apply(rows, None)
    with pytest.raises(InputError, match="embedding of 'cat-1500' is zero"):
        heads.Heads(random_linear(4), None).real(rows, ids=[f"cat-{number}" for number in range(2000)])
    rows[3, 2] = np.nan
    for head in (None, random_linear(4)):
        with pytest.raises(InputError, match="embedding of row 3 is not finite"):
            heads.apply(rows, head)
    with pytest.raises(InputError, match="embedding of row 0 is zero"):
        heads.apply(
            np.ones((1, 4), np.float32), heads.Linear(np.zeros((4, 4), np.float32), np.zeros(4, np.float32))
        )


def test_dimensions_must_agree():
    with pytest.raises(InputError, match="embeddings of 5 dimensions for a head that takes 4"):
        heads.apply(random_rows(2, 5), random_linear(4))
    with pytest.raises(InputError, match=r"shape \(5,\); expected \(rows, dim\)"):
        heads.apply(np.ones(5, np.float32), None)


def test_saved_heads_come_back_with_their_notes(tmp_path):
    both = heads.Heads(random_linear(6, seed=1), random_linear(6, seed=2))
    heads.save(
        tmp_path / "deep" / "linear.safetensors", both, {"penalty": 0.1, "encoder": "pixel", "a": None}
    )
    loaded = heads.load(tmp_path / "deep" / "linear.safetensors")
    rows = random_rows(4, 6)
    assert np.array_equal(loaded.real(rows), both.real(rows))
    assert np.array_equal(loaded.synth(rows), both.synth(rows))
    assert not np.array_equal(loaded.real(rows), loaded.synth(rows))
    assert heads.metadata(tmp_path / "deep" / "linear.safetensors") == {
        "penalty": 0.1,
        "encoder": "pixel",
        "a": None,
    }
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["linear.safetensors"]


def test_the_file_has_the_published_names_and_equal_heads_give_equal_bytes(tmp_path):
    from safetensors.numpy import load_file

    both = heads.Heads(random_linear(6, seed=1), random_linear(6, seed=2))
    for name in "ab":
        heads.save(tmp_path / name, both, {"x": 1, "y": 2, "z": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(load_file(tmp_path / "a")) == [
        "real_mapper.bias",
        "real_mapper.weight",
        "synth_mapper.bias",
        "synth_mapper.weight",
    ]


def test_untuned_heads_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="no heads"):
        heads.save(tmp_path / "x", heads.load(None), {})


def test_files_without_heads_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match="m.safetensors: no such mapper"):
        heads.load(path)
    path.write_bytes(b"not a mapper")
    with pytest.raises(InputError, match="m.safetensors: not a readable mapper"):
        heads.load(path)
    square, vector = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    head = {"weight": square, "bias": vector}
    complete = {f"{side}.{name}": value for side in head_files.SIDES for name, value in head.items()}
    for change, message in [
        ({"real_mapper.bias": None}, "has tensors .*expected"),
        ({"real_mapper.bias": np.zeros(2, np.float32)}, r"real_mapper has weight \(3, 3\) and bias \(2,\)"),
        (
            {"synth_mapper.weight": np.full((3, 3), np.nan, np.float32)},
            "synth_mapper has non-finite numbers",
        ),
        ({"synth_mapper.weight": np.zeros((3, 4), np.float32)}, r"shapes \(3, 3\) and \(3, 4\)"),
    ]:
        save_file({key: value for key, value in (complete | change).items() if value is not None}, path)
        with pytest.raises(InputError, match=f"m.safetensors: .*{message}"):
            heads.load(path)


def test_no_torch_is_imported(tmp_path):
    heads.save(tmp_path / "x", heads.Heads(random_linear(3), random_linear(3)), {})
    code = (
        "import sys, numpy; from pathlib import Path; from attrib_core.features.heads import heads;"
        f"heads.load(Path({str(tmp_path / 'x')!r})).real(numpy.ones((2, 3), 'float32'));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
