"""Stable Diffusion 2 and SDXL: every method trains them in a stack as alone, and stock pipelines sample the same."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config import preflight
from attrib_core.diffusion.customization import customize, training_data, training_loop
from attrib_core.diffusion.customization.method import Customizer
from attrib_core.diffusion.customization.prior_protocol import PriorClass, PriorInputs
from attrib_core.diffusion.customization.training_data import EncodedSet
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import components, cropping, description, sampling
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.synthesis import synthesize as synthesis
from tests.diffusion import diffusion_families_fixtures as other
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN, close, decode
from tests.diffusion.training_fixtures import encode_sets, flat, relative_distance, same, train_models

METHODS = families.names("customizers")
OPTIONS: dict[str, Any] = {
    "steps": 2, "style_steps": 2, "learning_rate": 0.003, "exemplar_batch": 2, "prior_batch": 1, "stack": 2,
    "views": 2,
}  # fmt: skip
SAVED = {"sd2": other.save_sd2, "sdxl": other.save_xl}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bases")
    return {name: save(place / name) for name, save in SAVED.items()}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, Components]:
    return {
        name: components.with_token(components.load(description.describe(folder), "cpu"), TOKEN)
        for name, folder in folders.items()
    }


@pytest.fixture(scope="module")
def encoded_sets(loaded: dict[str, Components], prior_file: Path) -> dict[str, list[EncodedSet]]:
    return {
        name: encode_sets(one, prior_file, fixtures.exemplar_sets()[:3], views=2)
        for name, one in loaded.items()
    }


def method(family: str, **changes: Any) -> Customizer:
    found: Customizer = families.load("customizers", family, OPTIONS | changes)
    return found


@pytest.mark.parametrize("family", METHODS)
@pytest.mark.parametrize("base", SAVED)
def test_stacked_equals_alone(
    base: str, family: str, encoded_sets: dict[str, list[EncodedSet]], loaded: dict[str, Components]
) -> None:
    one, sets, how = loaded[base], encoded_sets[base], method(family)
    first = train_models(sets[:2], one, how)
    turned = train_models([sets[2], sets[0]], one, how)
    assert same(first[0], turned[1])
    single = train_models(sets[:1], one, how, width=1)[0]
    begun = how.start(one, [sets[0].noun], 5).delta(0)
    assert relative_distance(flat(first[0].delta), flat(single.delta), flat(begun)) < 2e-4
    assert [row.shape for row in first[0].delta.embeddings] == [(one.table.shape[1],) for one in one.encoders]
    for own, start in zip(first[0].delta.embeddings, begun.embeddings, strict=True):
        assert (own - start).abs().max() > how.learning_rate / 2


def train_plainly(
    data: EncodedSet, one: Components, how: Customizer
) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """A plain implementation of Custom Diffusion of SDXL on one set."""
    unet = copy.deepcopy(one.unet)
    rows, encoders = [], []
    for encoder in one.encoders:
        model = copy.deepcopy(encoder.model)
        noun = encoder.tokenizer(data.noun, add_special_tokens=False).input_ids
        row = torch.nn.Parameter(encoder.table[noun].mean(dim=0))
        model.resize_token_embeddings(len(encoder.tokenizer))
        model.get_input_embeddings().register_forward_hook(
            lambda _, given, out, row=row, token=encoder.token: torch.where(
                (given[0] == token)[..., None], row, out
            )
        )
        rows.append(row)
        encoders.append(model)
    weights = {}
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.register_forward_hook(lambda _, __, out: torch.cat([out[:, :1].detach(), out[:, 1:]], 1))
            weights[f"{name}.weight"] = layer.weight.requires_grad_()
    parameters = [*weights.values(), *rows]
    optimizer = torch.optim.AdamW(parameters, how.learning_rate, weight_decay=how.weight_decay)
    for step in range(how.steps):
        drawn = training_loop.draw(data, step, how, num_train_timesteps=1000, seed=5)
        ids = drawn.ids.split(24, dim=1)
        outputs = [model(own, output_hidden_states=True) for model, own in zip(encoders, ids, strict=True)]
        given = data.prior
        assert given is not None and given.prompt_embeds.pooled is not None
        states = torch.cat([each.hidden_states[-2] for each in outputs], dim=2)
        pooled = torch.cat([outputs[1].text_embeds, given.prompt_embeds.pooled[drawn.prior]])
        noisy = one.scheduler.add_noise(drawn.latents, drawn.noise, drawn.timesteps)
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[32, 32, 0, 0, 32, 32]] * 3)}
        context = torch.cat([states, given.prompt_embeds.states[drawn.prior]])
        errors = (
            unet(noisy, drawn.timesteps, context, added_cond_kwargs=added).sample - drawn.noise
        ).square()
        optimizer.zero_grad()
        (errors[:2].mean() + how.prior_weight * errors[2:].mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, how.gradient_clip)
        optimizer.step()
    return {key: value.detach() for key, value in weights.items()}, [row.detach() for row in rows]


def test_sdxl_equals_its_plain_implementation(
    encoded_sets: dict[str, list[EncodedSet]], loaded: dict[str, Components]
) -> None:
    one, data, how = loaded["sdxl"], encoded_sets["sdxl"][0], method("custom_diffusion", steps=3)
    delta = train_models([data], one, how)[0].delta
    weights, rows = train_plainly(data, one, how)
    begun = how.start(one, [data.noun], 5).delta(0)
    assert set(delta.weights) == set(weights)
    pairs = [(delta.weights[key], weights[key], begun.weights[key]) for key in weights]
    for found, expected, start in [*pairs, *zip(delta.embeddings, rows, begun.embeddings, strict=True)]:
        assert relative_distance(found, expected, start) < 2e-4


def test_options_of_training_work_for_sdxl(
    encoded_sets: dict[str, list[EncodedSet]], loaded: dict[str, Components]
) -> None:
    one, sets = loaded["sdxl"], encoded_sets["sdxl"][:2]
    plain, spare, coarse = (
        train_models(sets, one, method("custom_diffusion", **changes))[0]
        for changes in ({}, {"checkpointing": True}, {"precision": "bfloat16"})
    )
    assert torch.equal(flat(plain.delta), flat(spare.delta))
    assert coarse.loss == pytest.approx(plain.loss, rel=1e-2) and coarse.loss != plain.loss


def test_prior_images_of_sdxl_do_not_depend_on_their_batch(folders: dict[str, Path]) -> None:
    base = description.describe(folders["sdxl"])
    source = families.load("priors", "generated", {"images": 3, "steps": 2}, device="cpu", seed=2)
    (asked,) = source.plan([PriorClass("object", "fruit")], PriorInputs(base=base))
    one_by_two = replace(source, batch=2)
    whole, last = (
        list(one_by_two.encoded_images([replace(asked, rows=rows)], PriorInputs(base=base)))
        for rows in (asked.rows, asked.rows[2:])
    )
    assert last == whole[2:] and last[0] != whole[0]


def test_the_micro_conditioning_of_sdxl(loaded: dict[str, Components]) -> None:
    """Original size, crop coordinates after a resize to a shorter side of 32, target size; and their effect."""
    assert cropping.micro_conditioning(64, 64, 32) == (64, 64, 0, 0, 32, 32)
    assert cropping.micro_conditioning(100, 200, 32) == (100, 200, 0, 16, 32, 32)
    assert cropping.micro_conditioning(300, 100, 32) == (300, 100, 32, 0, 32, 32)
    wide = replace(fixtures.exemplar_sets()[0], images={"wide": fixtures.png(1, 64)})
    one = loaded["sdxl"]
    found = training_data.encode_exemplar_set(
        wide, one, Customizer(views=3, scale_jitter=0.1, shift=0.1), prompts=[TOKEN], prior=None, seed=1
    )
    assert found.sizes.tolist() == [[64, 64, 0, 0, 32, 32]] * 3
    text = components.empty_prompt_embeds(one, 1)
    assert not text.states.any() and text.pooled is not None and not text.pooled.any()
    noise = sampling.initial_noise(one, [1])
    with torch.no_grad():
        plain, small = (
            components.predict(one, noise, torch.tensor(500), text, sizes)
            for sizes in (None, found.sizes[:1])
        )
    assert (plain - small).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("base", "family", "tokens"),
    [
        ("sd2", "custom_diffusion", 1),
        *(("sdxl", family, 1) for family in METHODS),
        ("sdxl", "textual_inversion", 2),
    ],
)
def test_the_stock_pipeline_samples_the_same(
    base: str, family: str, tokens: int, folders: dict[str, Path], prior_file: Path, tmp_path: Path
) -> None:
    described, sets = description.describe(folders[base]), fixtures.exemplar_sets()[:2]
    settings = {"family": family, **OPTIONS, "tokens": tokens}
    named = {"settings": settings, "modifier_token": TOKEN, "seed": 4, "code": "code", "device": "cpu"}
    rows = customize.customize(sets, prior_file, described, run=tmp_path / "run", **named)
    again = customize.customize(sets, prior_file, described, run=tmp_path / "run", **named)
    assert rows == again
    prompts = fixtures.prompt_rows(sets)[::2]
    tables = synthesis.synthesize(
        rows, prompts, described, steps=3, guidance=3.0, batch=3, image_format="png", quality=90, samples_each=1,
        control_samples_each=1, run=tmp_path / "run", seed=9, code="code", device="cpu",
    )  # fmt: skip
    shown = [row for _, table in tables for row in table.to_pylist()]
    for row in rows[1:]:
        pipe = DiffusionPipeline.from_pretrained(folders[base])
        # by default DDIM clips to [-1, 1], which latents exceed
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
        pipe.set_progress_bar_config(disable=True)
        found = {}
        for condition in ("control", "customized"):
            own = next(
                one
                for one in shown
                if (one["exemplar_set"], one["condition"]) == (row["exemplar_set"], condition)
            )
            if condition == "customized":  # raises where nothing has changed
                run = tmp_path / "run"
                delta_files.load_into(pipe, run / row["delta_path"], run / row["token_path"], TOKEN)
            fresh = components.load(described, "cpu")
            expected = pipe(
                own["prompt"], latents=sampling.initial_noise(fresh, [own["seed"]]), num_inference_steps=3,
                guidance_scale=3.0, output_type="np",
            ).images[0]  # fmt: skip
            found[condition] = decode([own["image"]])[0]
            assert close(found[condition], (expected * 255).round())
        assert (found["control"] != found["customized"]).any()


def test_bases_that_do_not_fit_sdxl(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["sdxl"], tmp_path / "xl"))

    def changed(file: str, **values: Any) -> None:
        path = folder / file
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | values))
        with pytest.raises(InputError) as caught:
            components.load(description.describe(folder), "cpu")
        messages.append(str(caught.value).removeprefix(f"{folder}/"))
        path.write_text(before)

    messages: list[str] = []
    changed("model_index.json", _class_name="FluxPipeline")
    changed("unet/config.json", addition_embed_type=None)
    changed("unet/config.json", cross_attention_dim=40)
    changed("unet/config.json", projection_class_embeddings_input_dim=64)
    changed("vae/config.json", latents_mean=[0.0] * 4)
    changed("tokenizer_2/tokenizer_config.json", model_max_length=20)
    assert messages[0].startswith("model_index.json: _class_name is 'FluxPipeline', expected one of Stable")
    assert messages[1] == "unet/config.json: addition_embed_type is None, expected 'text_time', as in SDXL"
    assert (
        messages[2] == "unet/config.json: cross_attention_dim is 40, but the text encoders are 24 + 40 wide"
    )
    assert "projection_class_embeddings_input_dim is 64, expected 72" in messages[3]
    assert messages[4].startswith("vae/config.json: latents_mean is [0.0")
    assert "its tokenizers read [24, 20] tokens, expected as many in each" in messages[5]
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="lacks the weights of its text_encoder_2"):
        description.describe(folder)


def test_check_names_both_text_encoders(folders: dict[str, Path]) -> None:
    line = next(preflight.open_all({"base_model": {"family": "folder", "path": str(folders["sdxl"])}}))
    assert line.startswith("base model: 32 pixels, epsilon, text 24 + 40 wide, fingerprint")


def test_a_delta_for_one_text_encoder_does_not_serve_two(loaded: dict[str, Components]) -> None:
    row = torch.zeros(24)
    with (
        pytest.raises(InputError, match="is for 1 text encoders, the base model has 2"),
        delta_files.apply_deltas(loaded["sdxl"], [delta_files.Delta({}, row)]),
    ):
        pass
