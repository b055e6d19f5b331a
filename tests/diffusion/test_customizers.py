"""The contract of a customization method, tested with every family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from attrib_core.common import families, hashing
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.stacked_layers import FirstTokenDetached, StackedLinear
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.customizers import crossattn, lora
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import components, description, sampling
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.synthesis import synthesize as synthesis
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.customization_reference import Prepared, keys_and_values, train_plainly
from tests.diffusion.diffusion_fixtures import TOKEN, close, decode, stock_pipeline
from tests.diffusion.training_fixtures import (
    encode_sets,
    flat,
    relative_distance,
    same,
    stored_deltas,
    train_models,
)

METHODS = families.names("customizers")
OPTIONS: dict[str, Any] = {
    "steps": 3, "learning_rate": 0.003, "exemplar_batch": 2, "prior_batch": 1, "prior_weight": 0.7,
    "stack": 3, "views": 4,
}  # fmt: skip


def method(family: str, **changes: Any) -> Customizer:
    found: Customizer = families.load("customizers", family, OPTIONS | changes)
    return found


@pytest.mark.parametrize("family", METHODS)
def test_stacked_equals_alone(family: str, encoded_sets: list[EncodedSet], loaded: Components) -> None:
    """With other sets and at another position: the same bit for bit. In a stack of one: the same up to rounding."""
    one = method(family)
    first = train_models([encoded_sets[0], encoded_sets[1], encoded_sets[4]], loaded, one)
    turned = train_models([encoded_sets[4], encoded_sets[3], encoded_sets[0]], loaded, one)
    assert same(first[0], turned[2]) and same(first[2], turned[0])
    assert not same(first[0], first[1])
    start = flat(one.start(loaded, [encoded_sets[0].noun], 5).delta(0))
    single = train_models([encoded_sets[0]], loaded, one, width=1)[0]
    assert (flat(single.delta) - start).abs().max() > one.learning_rate
    assert relative_distance(flat(first[0].delta), flat(single.delta), start) < 2e-4


def all_of_cross_attention(unet: Any) -> Prepared:
    return keys_and_values(unet, crossattn.KEYS_AND_VALUES + crossattn.QUERIES_AND_OUTPUTS)


def by_peft(unet: Any) -> Prepared:
    """Prepare the UNet with peft's own layers, with A drawn as the method draws it."""
    from peft import LoraConfig

    options = lora.LoRA()
    unet.add_adapter(
        LoraConfig(r=options.rank, lora_alpha=16, target_modules=list(lora.PROJECTIONS), lora_bias=False)
    )
    found = {}
    for name, one in unet.named_parameters():
        if ".lora_" not in name:
            continue
        key = f"unet.{name.replace('.default', '')}"
        if ".lora_A." in name:
            layer = key.removeprefix("unet.").removesuffix(".lora_A.weight")
            bound = one.shape[1] ** -0.5
            drawn = hashing.generator("lora", 5, layer).uniform(-bound, bound, tuple(one.shape))
            one.data.copy_(torch.from_numpy(drawn))
        found[key] = one
    return found


@pytest.mark.parametrize(
    ("family", "prepare", "changes"),
    [
        ("custom_diffusion", keys_and_values, {}),
        ("crossattn", all_of_cross_attention, {}),
        ("lora", by_peft, {"alpha": 16.0}),
        ("textual_inversion", lambda unet: {}, {}),
    ],
)
def test_every_method_equals_its_plain_implementation(
    family: str,
    prepare: Callable[[Any], Prepared],
    changes: dict[str, Any],
    encoded_sets: list[EncodedSet],
    loaded: Components,
) -> None:
    one = method(family, **changes)
    model = train_models(encoded_sets[2:], loaded, one)[0]
    weights, row = train_plainly(encoded_sets[2], loaded, one, 5, prepare)
    assert set(model.delta.weights) == set(weights)
    begun = one.start(loaded, [encoded_sets[2].noun], 5).delta(0)
    for key, expected in {**weights, "row": row}.items():
        if ".lora_B." in key:
            expected = expected * 2  # alpha / rank, which is multiplied into the delta
        found = model.delta.embedding if key == "row" else model.delta.weights[key]
        start = begun.embedding if key == "row" else begun.weights[key]
        if key == "row" or ".lora_A." not in key:
            assert (expected - start).abs().max() > one.learning_rate / 2
        # A has a gradient only when B is no longer zero: AdamW divides by a number close to zero
        assert relative_distance(found, expected, start) < (1e-3 if ".lora_A." in key else 2e-4)


@pytest.mark.parametrize("family", METHODS)
def test_every_method_resumes_and_synthesizes(
    family: str, tiny_base: Path, customize: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    sets, options = fixtures.exemplar_sets(), OPTIONS | {"steps": 2, "style_steps": 2, "stack": 2}
    rows = customize(sets, family=family, **options)
    customize(sets[:2], "later", family=family, **options)
    customize(sets, "later", family=family, **options)
    assert len(stored_deltas(tmp_path / "run")) == 10
    assert stored_deltas(tmp_path / "run") == stored_deltas(tmp_path / "later")

    base = description.describe(tiny_base)
    tables = list(
        synthesis.synthesize(
            rows[2:4], fixtures.prompt_rows(sets[2:4]), base, steps=3, guidance=3.0, batch=5, image_format="png",
            quality=90, samples_each=1, control_samples_each=1, run=tmp_path / "run" / "run", seed=9, code="code",
            device="cpu",
        )
    )  # fmt: skip
    images = [row for _, table in tables for row in table.to_pylist()]
    for row in rows[2:4]:
        own = [
            one
            for one in images
            if one["exemplar_set"] == row["exemplar_set"] and one["condition"] == "customized"
        ]
        found = decode([one["image"] for one in own])
        expected = stock_images(tiny_base, row, own, tmp_path / "run" / "run")
        assert close(found, expected)


def stock_images(
    tiny_base: Path, row: dict[str, Any], asked: Sequence[dict[str, Any]], run: Path
) -> np.ndarray:
    """The same images from a stock pipeline, with the delta loaded by stock calls."""
    pipe = stock_pipeline(tiny_base)
    delta_files.load_into(pipe, run / row["delta_path"], run / row["token_path"], TOKEN)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    fresh = components.load(description.describe(tiny_base), "cpu")
    shown = pipe(
        [one["prompt"] for one in asked], latents=sampling.initial_noise(fresh, [one["seed"] for one in asked]),
        num_inference_steps=3, guidance_scale=3.0, output_type="np",
    ).images  # fmt: skip
    return (shown * 255).round().astype(np.uint8)


def test_deltas_of_all_methods_in_one_batch(encoded_sets: list[EncodedSet], loaded: Components) -> None:
    """Factors, full weights with biases, only tokens, and the base model."""
    models = [
        train_models([encoded_sets[0]], loaded, method(family, stack=1, learning_rate=0.05))[0].delta
        for family in METHODS
    ]
    ids = components.tokenize(loaded, [f"a {TOKEN} fruit", *["a fruit"] * len(models)])
    rows: list[delta_files.Delta | None] = [*models, None]
    noise = sampling.initial_noise(loaded, [3]).expand(len(rows), -1, -1, -1)

    def predicted(chosen: list[delta_files.Delta | None]) -> torch.Tensor:
        with torch.no_grad(), delta_files.apply_deltas(loaded, chosen):
            texts = torch.stack([ids[0] if model else ids[1] for model in chosen])
            states = components.encode_text(loaded, texts)
            found: torch.Tensor = components.predict(loaded, noise[: len(chosen)], torch.tensor(500), states)
            return found

    together = predicted(rows)
    for number, model in enumerate(rows):
        torch.testing.assert_close(together[number], predicted([model])[0], rtol=1e-4, atol=1e-4)
        for other in range(number):
            assert (together[number] - together[other]).abs().max() > 1e-3


@pytest.mark.parametrize("family", METHODS)
def test_several_tokens_are_all_trained(
    family: str,
    tiny_base: Path,
    prior_file: Path,
    customize: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    base = components.load(description.describe(tiny_base), "cpu")
    several = components.with_token(base, TOKEN, 3)
    assert several.tokenizer.convert_ids_to_tokens(
        components.tokenize(several, [f"a {TOKEN} fruit"])[0].tolist()
    )[2:5] == [TOKEN, f"{TOKEN}_1", f"{TOKEN}_2"]
    table = base.table.clone()
    one = method(family, tokens=3, weight_decay=0.1)
    model = train_models(encode_sets(several, prior_file, fixtures.exemplar_sets()[:2]), several, one)[0]
    start = one.start(several, ["fruit"], 5).delta(0).embedding
    assert model.delta.embedding.shape == (3, 32)
    assert ((model.delta.embedding - start).abs().max(dim=1).values > one.learning_rate / 2).all()
    assert not torch.equal(model.delta.embedding[0], model.delta.embedding[2])
    assert torch.equal(base.table, table)
    # and stock diffusers expands the prompt in the same way
    row = customize(fixtures.exemplar_sets()[:1], family=family, **(OPTIONS | {"tokens": 2}))[0]
    two = components.with_token(base, TOKEN, 2)
    pipe = stock_pipeline(tiny_base)
    files = [tmp_path / "run" / "run" / row[name] for name in ("delta_path", "token_path")]
    delta_files.load_into(pipe, *files, TOKEN)
    with torch.no_grad():
        expected = pipe.encode_prompt(f"a {TOKEN} fruit", "cpu", 1, False)[0]
        with delta_files.apply_deltas(two, [delta_files.read(*files, TOKEN, row["checksum"])]):
            found = components.encode_text(two, components.tokenize(two, [f"a {TOKEN} fruit"]))
    torch.testing.assert_close(found.states, expected, rtol=1e-4, atol=1e-4)


def test_crossattn_detaches_the_first_token_in_keys_and_values(loaded: Components) -> None:
    stack = method("crossattn").start(loaded, ["fruit"], 0)
    with stack.attached():
        kinds = {
            name.split("attn2.")[1]: type(layer).__name__
            for name, layer in loaded.unet.named_modules()
            if ".attn2.to_" in name and type(layer) in (StackedLinear, FirstTokenDetached)
        }
    assert kinds == {
        "to_k": "FirstTokenDetached",
        "to_v": "FirstTokenDetached",
        "to_q": "StackedLinear",
        "to_out.0": "StackedLinear",
    }


def test_settings_of_lora(encoded_sets: list[EncodedSet], loaded: Components) -> None:
    still = method("lora", train_token=False, layers="cross_attention", rank=2)
    model = train_models(encoded_sets[:2], loaded, still)[0]
    assert torch.equal(
        model.delta.embedding, still.start(loaded, [encoded_sets[0].noun], 5).delta(0).embedding
    )
    assert {key.split(".lora_")[0].split(".attn")[1][0] for key in model.delta.weights} == {"2"}
    assert {min(value.shape) for value in model.delta.weights.values()} == {2}
    assert all(value.abs().max() > 0 for value in model.delta.weights.values())
    assert not same(model, train_models(encoded_sets[:2], loaded, replace(still, alpha=1.0))[0])  # type: ignore[call-arg]


@pytest.mark.parametrize("family", METHODS)
def test_a_plan_knows_the_shapes_of_a_delta_before_there_is_one(
    family: str, loaded: Components, encoded_sets: list[EncodedSet]
) -> None:
    """Every key and shape of a trained delta is known from the shapes of the UNet's weights."""
    one = method(family, steps=1)
    (model,) = train_models(encoded_sets[:1], loaded, one)
    shapes = {key: tuple(value.shape) for key, value in loaded.unet.state_dict().items()}
    assert one.delta_shapes(shapes) == {key: tuple(value.shape) for key, value in model.delta.weights.items()}
