"""Mutated files of deltas: each is refused in one line, or read with numbers that are those of the file."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from attrib_core.common.errors import InputError
from attrib_core.diffusion.deltas import import_export, layouts
from attrib_core.storage import safetensors_files
from tests.diffusion import lora_fixtures as fixtures

Weights = dict[str, torch.Tensor]
LAYER = "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_v"
CONFIG = json.dumps({"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_v": 3}})


def quick(examples: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(derandomize=True, deadline=None, max_examples=examples, suppress_health_check=checks)


NAMES = [fixtures.kohya, fixtures.diffusers, fixtures.adapter, fixtures.older, fixtures.oldest]


def lora(name: fixtures.Name) -> dict[str, torch.Tensor]:
    return {name(LAYER, "A"): torch.arange(6.0).reshape(2, 3) + 1, name(LAYER, "B"): torch.ones(4, 2)}


def strength(name: fixtures.Name, metadata: bool) -> float:
    return 1.5 if metadata and name is not fixtures.adapter else 1.0


ODD_KEYS = st.sampled_from(
    ["", "a", "unet.a", "lora_unet_", ".alpha", "x.lora_A.weight", "text_encoder.q", "lora_te_x.alpha", "emb_params",
     f"unet.{LAYER}.alpha", "lora_unet_input_blocks_4_1_x.alpha", "modifier_token", "unet", "clip_l", "a.hada_w1_a"]
)  # fmt: skip
ODD_VALUES = st.sampled_from(
    [torch.tensor(2.0), torch.ones(2), torch.ones(2, 3), torch.ones(0), torch.tensor(float("nan")), torch.ones(2).int(),
     torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta"), torch.full((4, 2), float("inf")), 2.0, None, "x", [1],
     {"u": torch.ones(4, 2), "v": torch.ones(2, 3)}, {"u": 1, "v": 2}, {}, torch.ones(2, 3, dtype=torch.complex64)]
)  # fmt: skip


@quick(300)
@given(name=st.sampled_from(NAMES), drop=st.booleans(), changes=st.dictionaries(ODD_KEYS, ODD_VALUES, max_size=3),
       own=st.one_of(st.none(), ODD_VALUES))  # fmt: skip
def test_pickled_contents(
    name: fixtures.Name, drop: bool, changes: dict[str, Any], own: Any, tmp_path: Path
) -> None:
    """Any mixture of sound and odd entries."""
    stored: dict[str, Any] = lora(name) | changes
    if drop:
        stored.pop(name(LAYER, "B"))
    if own is not None:
        stored[name(LAYER, "A")] = own
    torch.save(stored, tmp_path / "d.bin")
    try:
        found = layouts.read(tmp_path / "d.bin")
    except InputError as error:
        assert str(tmp_path / "d.bin") in str(error) and "\n" not in str(error)
        return
    assert import_export.describe(found, 1, None)
    alphas = [value for key, value in changes.items() if key == f"unet.{LAYER}.alpha"]
    for key, value in found.weights.items():
        assert torch.isfinite(value).all() and value.dtype == torch.float32
        if key == f"unet.{LAYER}.lora_B.weight":
            factor = float(alphas[0]) / 2 if alphas and name is not fixtures.kohya else 1.0
            assert torch.equal(value, torch.ones(4, 2) * factor)
    assert not [key for key in stored if "text_encoder" in key and key not in " ".join(found.text_encoder)]


def saved(name: fixtures.Name, metadata: bool) -> bytes:
    content: bytes = save(lora(name), {"lora_adapter_metadata": CONFIG} if metadata else None)
    return content


def said(content: bytes) -> Any:
    """The keys, types and shapes of the tensors that a file of safetensors announces, and its metadata."""
    try:
        entries = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
        metadata = entries.pop("__metadata__", None)
        return metadata, {key: (entry["dtype"], entry["shape"]) for key, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_or_refused(content: bytes, path: Path) -> Weights | None:
    """The numbers that a file gives; None where it is refused in one line."""
    path.write_bytes(content)
    try:
        weights: Weights = layouts.read(path).weights
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return None
    assert all(torch.isfinite(value).all() for value in weights.values())
    return weights


def same(first: Weights | None, second: Weights | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@quick(300)
@given(name=st.sampled_from(NAMES), metadata=st.booleans(), place=st.integers(0, 10_000), byte=st.integers(0, 255),
       cut=st.one_of(st.just(0), st.integers(-300, 20)))  # fmt: skip
def test_bytes_of_safetensors(
    name: fixtures.Name, metadata: bool, place: int, byte: int, cut: int, tmp_path: Path
) -> None:
    """One byte of the header changed, or the file cut off or longer: refused, or the same numbers.

    Other numbers only where the header says something else of them: other keys or shapes, or another alpha.
    """
    sound, path = saved(name, metadata), tmp_path / "d.safetensors"
    before = read_or_refused(sound, path)
    assert (before is None) == (metadata and name is fixtures.adapter)
    if before is not None:
        numbers = sorted(float(value.double().abs().sum()) for value in before.values())
        assert numbers == pytest.approx(sorted([21.0, 8 * strength(name, metadata)]))
    content = bytearray(sound)
    content[place % (8 + struct.unpack("<Q", sound[:8])[0])] = byte
    whole = bytes(content[:cut]) if cut < 0 else bytes(content) + bytes(cut)
    found = read_or_refused(whole, path)
    if whole == sound:
        assert same(found, before)
    elif found is not None:
        assert cut == 0
        assert same(found, before) or said(whole) != said(sound)


def test_headers_that_say_the_same_in_other_words_are_read(tmp_path: Path) -> None:
    """Most bytes cannot be changed without changing what is said; blanks and their like can."""
    for name in NAMES:
        sound = saved(name, False)
        before, end = (
            read_or_refused(sound, tmp_path / "d.safetensors"),
            8 + struct.unpack("<Q", sound[:8])[0],
        )
        header = sound[8:end].rstrip()
        for text in (
            header + b"\n" * 9,
            header.replace(b",", b" ,"),
            header.replace(b"weight", b"weigh\\u0074"),
        ):
            text += b" " * (-len(text) % 8)
            content = struct.pack("<Q", len(text)) + text + sound[end:]
            assert said(content) == said(sound)
            assert before is not None and same(read_or_refused(content, tmp_path / "e.safetensors"), before)


@quick(300)
@given(name=st.sampled_from(NAMES), metadata=st.booleans(), place=st.integers(0, 14 * 4 - 1),
       byte=st.integers(0, 255))  # fmt: skip
def test_a_byte_of_the_numbers_changes_its_number_alone(
    name: fixtures.Name, metadata: bool, place: int, byte: int, tmp_path: Path
) -> None:
    metadata = metadata and name is not fixtures.adapter  # refused
    sound, path = saved(name, metadata), tmp_path / "d.safetensors"
    before = read_or_refused(sound, path)
    start = 8 + struct.unpack("<Q", sound[:8])[0]
    content = bytearray(sound)
    content[start + place] = byte
    (number,) = struct.unpack_from("<f", content, start + place // 4 * 4)
    entries = json.loads(sound[8:start])
    ends = {"A": entries[name(LAYER, "A")]["data_offsets"], "B": entries[name(LAYER, "B")]["data_offsets"]}
    part = next(one for one, (first, last) in ends.items() if first <= place < last)
    assert before is not None
    expected = {key: value.clone() for key, value in before.items()}
    factor = strength(name, metadata) if part == "B" else 1.0
    changed = expected[f"unet.{LAYER}.lora_{part}.weight"].view(-1)
    changed[(place - ends[part][0]) // 4] = torch.tensor(number) * factor
    found = read_or_refused(bytes(content), path)
    if all(torch.isfinite(value).all() for value in expected.values()):
        assert found is not None and same(found, expected)
    else:
        assert found is None


@quick(150)
@given(text=st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 20), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["unet.r", "unet.lora_alpha", "unet.rank_pattern", "unet.alpha_pattern", "to_v", "(", "x",
                             "unet.use_rslora", "unet.init_lora_weights", "unet.peft_type"]), inner, max_size=4),
    ), max_leaves=8))  # fmt: skip
def test_any_metadata(text: Any, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    path.write_bytes(save(lora(fixtures.diffusers), {"lora_adapter_metadata": json.dumps(text)}))
    try:
        found = layouts.read(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    pattern = text.get("unet.alpha_pattern") or {}
    alpha = next((pattern[key] for key in pattern if key in ("to_v",)), text.get("unet.lora_alpha", 8))
    divisor = 2**0.5 if text.get("unet.use_rslora") else 2
    torch.testing.assert_close(
        found.weights[f"unet.{LAYER}.lora_B.weight"], torch.full((4, 2), alpha / divisor)
    )


@quick(250)
@given(content=st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 300), st.binary(max_size=100)).map(
    lambda two: struct.pack("<Q", two[0]) + b'{"a":' + two[1])))  # fmt: skip
def test_any_header(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    try:
        found = safetensors_files.header(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert not found.shapes and len(content) >= 8


def test_objects_are_not_built(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({LAYER + ".weight": Path("x")}, stream)
    (tmp_path / "d.bin").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="needs code to unpickle"):
        layouts.read(tmp_path / "d.bin")
