"""Sound files of features that were saved in unusual ways have their values; what has none is refused by name."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from attrib_core.abc_benchmark import calibrator_files, feature_files, mapper_files, test_cases
from attrib_core.common.errors import InputError
from tests.abc_benchmark.abc_fixtures import SMALL_CASE

VALUES = (torch.arange(24.0) - 11).reshape(6, 4) / 8  # exact in float16 and bfloat16


def negative(values: torch.Tensor) -> torch.Tensor:
    """The imaginary part of a conjugate: a view with the negative bit."""
    view = torch.complex(torch.zeros_like(values), -values).conj().imag
    assert view.is_neg()
    return view


def with_attribute(values: torch.Tensor) -> torch.Tensor:
    values = values.clone()
    values.note = "x"  # type: ignore[attr-defined]
    return values


FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "double": torch.Tensor.double,
    "half": torch.Tensor.half,
    "bfloat16": torch.Tensor.bfloat16,
    "transposed": lambda v: v.T.contiguous().T,
    "every other row": lambda v: torch.stack([v, v + 1], 1).reshape(12, 4)[::2],
    "every other column": lambda v: torch.stack([v, v + 1], 2).reshape(6, 8)[:, ::2],
    "some rows of more": lambda v: torch.cat([v + 1, v, v + 2])[6:12],
    "parameter": torch.nn.Parameter,
    "gradient": lambda v: v.clone().requires_grad_() * 1,
    "negative bit": negative,
    "negative bit, whole storage": lambda v: torch._neg_view(-v),
    "with an attribute": with_attribute,
}


def save(path: Path, content: Any, how: str) -> Path:
    """Save in the new format, in the old one, compressed, or as a machine with the other byte order does."""
    torch.save(content, path, _use_new_zipfile_serialization=how != "old")
    if how in ("compressed", "big-endian"):
        old = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
        method = zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as new:
            for name in old.namelist():
                data = old.read(name)
                if how == "big-endian" and name.endswith("byteorder"):
                    data = b"big"
                elif how == "big-endian" and "/data/" in name:
                    data = struct.pack(f">{len(data) // 4}f", *struct.unpack(f"<{len(data) // 4}f", data))
                new.writestr(name, data)
    return path


def pool_values(path: Path) -> np.ndarray:
    pool = feature_files.open_pool(path)
    return np.concatenate([block.vectors for block in pool.blocks(4)])


@pytest.mark.parametrize("how", ["new", "old", "compressed"])
@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_every_form_have_their_values(form: str, how: str, tmp_path: Path) -> None:
    made = FORMS[form](VALUES)
    content = {"before": VALUES + 5, "feats": made, "after": VALUES - 5}
    assert np.array_equal(pool_values(save(tmp_path / "pool.pth", content, how)), VALUES.numpy())
    case = {
        "exemplar_paths": None, "exemplar_chunks": [(0, 2), (2, 6)], "exemplar_tensors": made,
        "synth_paths": {"k": None}, "synth_ids": {"k": torch.tensor([0, 1, 1, 0, 0, 1])}, "synth_tensors": {"k": made},
    }  # fmt: skip
    test = test_cases.read_test(save(tmp_path / "test.pth", case, how))
    for matrix in (test.exemplars, test.queries[0].features):
        assert np.array_equal(np.concatenate([one.vectors for one in matrix.blocks(4)]), VALUES.numpy())
    assert test.queries[0].models.tolist() == [0, 1, 1, 0, 0, 1]
    head = {"weight": made, "bias": made[:, 0]}
    mapper = mapper_files.read_mapper(
        save(tmp_path / "m.pth", {"real_mapper": head, "synth_mapper": head}, how)
    )
    assert np.array_equal(mapper.real.layers[0].weight, VALUES.numpy())
    assert np.array_equal(mapper.synth.layers[0].bias, VALUES[:, 0].numpy())


def test_views_of_one_storage_have_their_own_values(tmp_path: Path) -> None:
    whole = torch.arange(48.0).reshape(12, 4)
    for how in ("new", "old", "compressed", "big-endian"):
        for start in (0, 3, 6):
            path = save(
                tmp_path / "a.pth", {"feats": whole[start : start + 6], "all": whole, "t": whole.T}, how
            )
            assert np.array_equal(pool_values(path), whole[start : start + 6].numpy()), how
    path = save(tmp_path / "a.pth", {"feats": torch.tensor([[1.0, 2.0]]).expand(5, 2)}, "new")
    assert np.array_equal(pool_values(path), np.tile([[1, 2]], (5, 1)))


def test_a_tensor_that_was_saved_on_a_gpu_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"feats": VALUES}, "new")
    content = path.read_bytes()
    old = zipfile.ZipFile(io.BytesIO(content))
    with zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            data = data.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0")
            new.writestr(name, data)
    assert b"cuda:0" in path.read_bytes() and np.array_equal(pool_values(path), VALUES.numpy())


def float8(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.float8_e4m3fn)


def test_eight_bit_floats_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"feats": float8(VALUES)}, "new")
    assert np.array_equal(pool_values(path), float8(VALUES).float().numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("feats", "words"),
    [
        (VALUES.to_sparse(), "a tensor that is sparse_coo"),
        (VALUES.to_sparse_csr(), "a tensor that is sparse_csr"),
        (torch.quantize_per_tensor(VALUES, 0.1, 0, torch.qint8), "a tensor that is quantized"),
        (torch.nested.nested_tensor([VALUES[0], VALUES[1]]), "a tensor that is nested"),
        (VALUES.to("meta"), "a tensor (6, 4) of float32, without values"),
        (VALUES.to(torch.complex64), "a tensor (6, 4) of complex64"),
        (VALUES.int(), "a tensor (6, 4) of int32"),
        (VALUES > 0, "a tensor (6, 4) of bool"),
        (VALUES.flatten(), "a tensor (24,) of float32"),
        (VALUES.reshape(6, 2, 2), "a tensor (6, 2, 2) of float32"),
        (torch.zeros(6, 0), "at least one dimension"),
        (torch.zeros(0, 4), "no rows"),
        (VALUES.tolist(), "a list of 6"),
        (None, "missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_has_no_rows_of_floats_is_named(feats: Any, words: str, zipped: bool, tmp_path: Path) -> None:
    if words.endswith("nested") and not zipped:
        pytest.skip("torch reads the sizes of nested tensors in the old format before they are there")
    torch.save({"feats": feats}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as caught:
        feature_files.open_pool(tmp_path / "a.pth")
    assert (
        words in str(caught.value) and "a.pth: feats" in str(caught.value) and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exemplar_chunks": {0: (0, 1)}}, "exemplar_chunks is a dict with ['0']"),
        ({"exemplar_chunks": torch.ones(3, 2)}, "exemplar_chunks is a tensor (3, 2) of float32"),
        ({"exemplar_chunks": torch.ones(3, 2).to_sparse()}, "exemplar_chunks is a tensor that is sparse_coo"),
        ({"synth_ids": {"gpt": torch.ones(6, device="meta"), "object": [0] * 6}}, "without values"),
        ({"synth_ids": [0] * 12}, "synth_ids is a list of 12, expected an entry 'gpt'"),
        ({"synth_ids": {"gpt": [True] * 6, "object": [0] * 6}}, "expected a list of whole numbers"),
        ({"synth_ids": {"gpt": [[0]] * 6, "object": [0] * 6}}, "expected a list of whole numbers"),
        (
            {"synth_paths": {"gpt": [1] * 6, "object": None}},
            "synth_paths['gpt'] is a list of 6, expected a list of str",
        ),
        (
            {"synth_tensors": {"gpt": VALUES, 3: VALUES, "3": VALUES}},
            "expected each prompt kind once, as a text",
        ),
        ({"synth_tensors": [VALUES]}, "synth_tensors is a list of 1, expected a tensor for each prompt kind"),
        ({"exemplar_tensors": None}, "exemplar_tensors is missing, expected a tensor (rows, dim) of floats"),
    ],
)
def test_layouts_that_do_not_fit_are_one_line(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = SMALL_CASE.write(tmp_path, **change)["test"]
    with pytest.raises(InputError) as caught:
        test_cases.read_test(path)
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1], {1: 2}, {torch.ones(2): 1}, VALUES, "text", None, 7])
@pytest.mark.parametrize("read", [feature_files.open_pool, test_cases.read_test, mapper_files.read_mapper])
def test_other_contents_are_one_line(read: Callable[[Path], Any], content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a.pth: is .*, expected a dict with ") as caught:
        read(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [torch.ones(2), torch.ones((), device="meta"), torch.ones(()) * 1j, 3.0, [1], None]
)
def test_a_calibrator_needs_numbers(value: Any, tmp_path: Path) -> None:
    torch.save(
        {"inv_tau": torch.tensor(2.0, requires_grad=True), "bias": torch._neg_view(torch.tensor(1.0))},
        tmp_path / "c.pt",
    )
    found = calibrator_files.read(tmp_path / "c.pt", 0.5)["released"].description["checkpoint"]
    assert found == {"inv_tau": 2.0, "bias": -1.0}
    torch.save({"inv_tau": torch.tensor(2.0), "bias": value}, tmp_path / "c.pth")
    with pytest.raises(InputError, match="c.pth: bias is .*, expected a tensor of one finite number"):
        calibrator_files.read(tmp_path / "c.pth", 0.5)


ARRAY = VALUES.numpy()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "g"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_every_form_have_their_values(dtype: str, order: Any, version: Any, tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as stream:
        np.lib.format.write_array(stream, np.asarray(ARRAY, dtype, order=order), version=version)
    assert np.array_equal(pool_values(tmp_path / "a.npy"), ARRAY)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array(1.0), "is an array () of float64"),
        (np.ones((2, 3, 4)), "is an array (2, 3, 4) of float64"),
        (np.ones((2, 3), complex), "complex128, expected (rows, dim) of floats"),
        (
            np.ones((2, 3), [("x", "f4")]),
            "holds an array (2, 3) of [('x', '<f4')]; expected a .npy file of numbers",
        ),
        (np.array([["a"]]), "holds an array (1, 1) of <U1; expected a .npy file of numbers"),
        (np.array([[{}]]), "not a readable .npy file of numbers"),
        (np.array([["2020-01-01"]], "M8[D]"), "datetime64[D]; expected a .npy file of numbers"),
    ],
)
def test_arrays_that_are_no_features_are_named(array: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError) as caught:
        feature_files.open_pool(tmp_path / "a.npy")
    assert words in str(caught.value) and "allow_pickle" not in str(caught.value)


def test_names_of_a_pool_of_parts_may_be_of_any_type_of_text(tmp_path: Path) -> None:
    """Such as the categories that pandas writes; the parts need not agree, and whole numbers are read as text."""
    types = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    for number, kind in enumerate(types):
        ids = pa.array([f"a{number}", f"b{number}"], pa.string()).cast(kind)
        pq.write_table(pa.table({"image_id": ids, "embedding": vectors}), tmp_path / f"{number}.parquet")
    pq.write_table(pa.table({"image_id": [8, 9], "embedding": vectors}), tmp_path / "numbers.parquet")
    names = [name for block in feature_files.open_pool(tmp_path).blocks(3) for name in block.names or ()]
    assert names == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3", "8", "9"]
