"""Customization: stacked training held against a plain loop, and what must not change a result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import customize as part
from attrib_core.diffusion.customization import inputs, stacked_layers, training_data, training_loop
from attrib_core.diffusion.customization.training_data import EncodedSet, ExemplarSet
from attrib_core.diffusion.customizers.custom_diffusion import CustomDiffusion
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import components, description
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.latents import encode_images
from attrib_core.storage import tables
from attrib_core.storage.schemas.generation import MEASURED
from attrib_core.storage.store import claims, layout
from tests.diffusion import diffusion_fixtures as made
from tests.diffusion.customization_reference import alone, apart
from tests.storage.claims_fixtures import Holder

SUBJECTS = ("owl", "pear", "unicorn")
TOKEN = "<new1>"
METHOD = CustomDiffusion(
    steps=3, learning_rate=0.003, exemplar_batch=2, prior_batch=1, prior_weight=0.7, stack=3, views=4
)  # fmt: skip
SETTINGS = {
    "family": "custom_diffusion",
    "steps": 2,
    "style_steps": 2,
    "exemplar_batch": 1,
    "prior_batch": 1,
    "stack": 2,
    "views": 2,
}


@pytest.fixture(scope="module")
def ready(loaded: Components, tmp_path_factory: pytest.TempPathFactory) -> list[EncodedSet]:
    sets = made.exemplar_sets()
    classes = sorted({(one.kind, one.category) for one in sets})
    path = made.write_prior(tmp_path_factory.mktemp("prior") / "images.parquet", classes)
    found = training_data.encode_prior_images(inputs.read_prior(path, classes), loaded, classes)
    return [
        training_data.encode_exemplar_set(
            one,
            loaded,
            prompts=[f"{TOKEN} {one.noun} {number}" for number in range(len(one.images))],
            prior=found[one.kind, one.category],
            views=4,
            scale_jitter=0.1,
            shift=0.08,
            seed=1,
        )
        for one in sets
    ]


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("clip", [1.0, 0.01])
def test_stacked_training_equals_training_alone(
    ready: list[EncodedSet], loaded: Components, prediction_type: str, clip: float
) -> None:
    scheduler = copy.deepcopy(loaded.scheduler)
    scheduler.register_to_config(prediction_type=prediction_type)
    network = replace(loaded, scheduler=scheduler)
    method = replace(METHOD, gradient_clip=clip)
    models = training_loop.train(ready[2:], network, method, steps=method.steps, seed=5)
    before = loaded.unet.state_dict()
    for concept, model in zip(ready[2:], models, strict=True):
        weights, row = alone(concept, network, method, seed=5)
        assert set(model.delta.weights) == set(weights) and len(weights) == 8
        for key, expected in {**weights, "row": row}.items():
            start = loaded.table[loaded.tokenizer(concept.noun, add_special_tokens=False).input_ids].mean(
                dim=0
            )
            start = start if key == "row" else before[key]
            assert (expected - start).abs().max() > method.learning_rate
            found = model.delta.embedding if key == "row" else model.delta.weights[key]
            assert apart(found, expected, start) < 2e-4


def same(first: training_loop.Trained, second: training_loop.Trained) -> bool:
    return (
        first.loss == second.loss
        and torch.equal(first.delta.embedding, second.delta.embedding)
        and all(torch.equal(first.delta.weights[key], value) for key, value in second.delta.weights.items())
    )


def test_companions_and_place_change_nothing(ready: list[EncodedSet], loaded: Components) -> None:
    first = training_loop.train([ready[0], ready[1], ready[4]], loaded, METHOD, steps=METHOD.steps, seed=5)
    turned = training_loop.train([ready[4], ready[3], ready[0]], loaded, METHOD, steps=METHOD.steps, seed=5)
    padded = training_loop.train([ready[4]], loaded, METHOD, steps=METHOD.steps, seed=5)
    assert same(first[0], turned[2])
    assert same(first[2], turned[0])
    assert same(first[2], padded[0])
    assert not same(first[0], first[1])


def test_the_seed_counts(ready: list[EncodedSet], loaded: Components) -> None:
    one, other = (
        training_loop.train([ready[0]], loaded, METHOD, steps=METHOD.steps, seed=seed)[0] for seed in (5, 6)
    )
    assert not same(one, other)


def test_training_leaves_the_base_model_as_it_was(ready: list[EncodedSet], loaded: Components) -> None:
    before = {key: value.clone() for key, value in loaded.unet.state_dict().items()}
    table = loaded.table.clone()
    training_loop.train(ready[:2], loaded, METHOD, steps=METHOD.steps, seed=5)
    after = loaded.unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[key], value) for key, value in after.items())
    assert torch.equal(loaded.table, table)
    assert not any(parameter.requires_grad for parameter in loaded.unet.parameters())


def test_no_gradient_through_the_first_token() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 5, 3, generator=generator)
    rows = torch.randn(4, 6, 3, generator=generator, requires_grad=True)
    layer = stacked_layers.FirstTokenDetached(weight).requires_grad_()
    out = layer(rows)
    for model in range(2):
        for row in (2 * model, 2 * model + 1):
            torch.testing.assert_close(out[row], rows[row] @ weight[model].T)
    factor = torch.randn(out.shape, generator=generator)
    (out * factor).sum().backward()
    assert rows.grad is not None and layer.weight.grad is not None
    assert rows.grad[:, 0].abs().max() == 0 and rows.grad[:, 1:].abs().min() > 0
    for model in range(2):
        expected = sum(factor[row, 1:].T @ rows.detach()[row, 1:] for row in (2 * model, 2 * model + 1))
        torch.testing.assert_close(layer.weight.grad[model], expected)


def test_each_model_has_its_own_token() -> None:
    table = torch.arange(8.0).view(4, 2)
    embedding = stacked_layers.StackedEmbedding(table, 4, torch.tensor([[10.0, 11.0], [20.0, 21.0]]))
    shown = embedding(torch.tensor([[0, 4], [4, 3], [4, 1]]).repeat_interleave(2, dim=0))
    assert shown[0].tolist() == [[0, 1], [10, 11]]
    assert shown[2].tolist() == [[10, 11], [6, 7]]
    assert shown[5].tolist() == [[20, 21], [2, 3]]


def test_a_token_starts_as_the_mean_of_its_noun(loaded: Components, ready: list[EncodedSet]) -> None:
    stack = METHOD.start(loaded, ["fruit", "fruit animal"], seed=0)
    ids = [loaded.tokenizer(noun, add_special_tokens=False).input_ids for noun in ("fruit", "animal")]
    assert len(ids[0]) == len(ids[1]) == 1
    torch.testing.assert_close(stack.delta(0).embedding, loaded.table[ids[0][0]])
    torch.testing.assert_close(stack.delta(1).embedding, loaded.table[[ids[0][0], ids[1][0]]].mean(dim=0))


def draws(concept: EncodedSet, power: float, steps: int = 200, batch: int = 4) -> list[training_loop.Draw]:
    return [
        training_loop.draw(
            concept,
            step,
            exemplar_batch=batch,
            prior_batch=2,
            timestep_power=power,
            num_train_timesteps=1000,
            seed=3,
        )
        for step in range(steps)
    ]


def test_draws_follow_their_distribution(ready: list[EncodedSet]) -> None:
    drawn = draws(ready[0], power=0.6)
    exemplar = np.concatenate([one.timesteps[:4].numpy() for one in drawn])
    share = (exemplar / 1000) ** (1 / 0.6)
    assert abs(share.mean() - 0.5) < 0.01 and share.min() >= 0 and exemplar.max() <= 999
    for one in drawn:
        quarters = np.sort(((one.timesteps[:4].numpy() + 0.5) / 1000) ** (1 / 0.6) * 4).astype(int)
        assert quarters.tolist() == [0, 1, 2, 3]
    noise = torch.stack([one.noise for one in drawn])
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    assert {int(position) for one in drawn for position in one.prior} == {0, 1, 2}


def test_draws_of_two_sets_or_steps_differ(ready: list[EncodedSet]) -> None:
    first, second = draws(ready[0], power=1.0, steps=2)
    other = draws(ready[2], power=1.0, steps=1)[0]
    assert not torch.equal(first.noise, second.noise)
    assert not torch.equal(first.noise, other.noise)


def test_a_view_without_jitter_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = training_data.moved(image, np.random.default_rng(1), scale_jitter=0.0, shift=0.0)
    assert np.array_equal(shown, image)


def test_views_shift_and_scale_about_the_middle() -> None:
    class Fixed:
        """A generator that draws the ends of its ranges: scale up, to the right, down."""

        def uniform(self, low: float, high: float, size: int | None = None) -> Any:
            return high if size is None else np.array([high] * size)

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = training_data.moved(image, Fixed(), scale_jitter=0.0, shift=4 / 32)  # type: ignore[arg-type]
    assert np.array_equal(shown[4:, 4:], image[:-4, :-4])
    assert np.array_equal(shown[:4, 4:], np.repeat(image[:1, :-4], 4, axis=0))
    dot = np.zeros((33, 33, 3), dtype=np.uint8)
    dot[16, 16] = dot[16, 26] = 255
    larger = training_data.moved(dot, Fixed(), scale_jitter=0.5, shift=0.0)[..., 0].astype(float)  # type: ignore[arg-type]
    assert np.unravel_index(larger[:, :22].argmax(), (33, 22)) == (16, 16)
    assert 22 + larger[16, 22:].argmax() == 31


def test_every_exemplar_is_among_the_views_as_it_is(loaded: Components) -> None:
    style = made.exemplar_sets()[4]
    one = training_data.encode_exemplar_set(
        style,
        loaded,
        prompts=[f"{TOKEN} {noun}" for noun in ("a", "b", "c")],
        prior=None,
        views=7,
        scale_jitter=0.1,
        shift=0.1,
        seed=0,
    )
    assert len(one.views) == 9
    images = np.stack([training_data.to_rgb(data, where="") for data in style.images.values()])
    mode = encode_images(loaded, images)
    torch.testing.assert_close(one.views[:3], mode, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one.views[3:6], mode, atol=1e-3)


def test_each_view_has_the_prompt_of_its_exemplar(loaded: Components) -> None:
    style = replace(
        made.exemplar_sets()[4], subjects={f"style-0.{number}": noun for number, noun in enumerate(SUBJECTS)}
    )
    prompts = training_data.training_prompts(style, {"style": "{subject} in {token} {category}"}, TOKEN)
    assert prompts == [f"{shown} in {TOKEN} art" for shown in ("an owl", "a pear", "a unicorn")]
    bracketed = training_data.training_prompts(style, {"style": "a picture[ of {subject}] by {token}"}, TOKEN)
    assert bracketed[0] == f"a picture of an owl by {TOKEN}"
    one = training_data.encode_exemplar_set(
        style, loaded, prompts=prompts, prior=None, views=7, scale_jitter=0.1, shift=0.1, seed=0
    )
    assert torch.equal(one.ids, components.tokenize(loaded, prompts * 3))
    drawn = training_loop.draw(
        one, 0, exemplar_batch=6, prior_batch=0, timestep_power=1.0, num_train_timesteps=1000, seed=1
    )
    for latents, ids in zip(drawn.latents, drawn.ids, strict=True):
        view = next(place for place, view in enumerate(one.views) if torch.equal(view, latents))
        assert torch.equal(ids, one.ids[view])


def test_a_template_with_subjects_needs_them(loaded: Components) -> None:
    with pytest.raises(InputError) as caught:
        training_data.training_prompts(made.exemplar_sets()[4], {"style": "{subject} in {token} art"}, TOKEN)
    assert "customizer.style_prompt: '{subject} in {token} art' asks for {subject}, but" in str(caught.value)
    assert "style-0.0" in str(caught.value)
    bracketed = {"style": "a picture[ of {subject}] by {token}"}
    assert (
        training_data.training_prompts(made.exemplar_sets()[4], bracketed, TOKEN)[0]
        == f"a picture by {TOKEN}"
    )


def test_style_sets_have_steps_of_their_own(customize: Callable[..., list[dict[str, Any]]]) -> None:
    """And kinds do not share a stack, so the models are those of the two kinds customized apart."""
    sets = made.exemplar_sets()[3:]
    assert [one.kind for one in sets] == ["object", "style"]
    rows = customize(sets, steps=2, style_steps=3)
    assert [row["steps"] for row in rows] == [2, 3]
    apart = [customize([one], run="apart", steps=2, style_steps=3)[0] for one in sets]
    assert [row["checksum"] for row in rows] == [row["checksum"] for row in apart]


@pytest.fixture
def customize(tiny_base: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The stage on given sets, in a run's folder of the test."""
    sets = made.exemplar_sets()
    path = made.write_prior(tmp_path / "images.parquet", sorted({(one.kind, one.category) for one in sets}))

    def run(
        sets: Sequence[ExemplarSet], run: str = "run", name: str = "run", **changes: Any
    ) -> list[dict[str, Any]]:
        return part.customize(
            sets,
            path,
            description.describe(changes.pop("base", tiny_base)),
            settings=SETTINGS | changes,
            modifier_token=TOKEN,
            run=tmp_path / run / name,
            seed=4,
            code="code",
            device="cpu",
        )

    return run


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("store/deltas/*.safetensors")}


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def test_a_killed_part_resumes_and_ends_the_same(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = made.exemplar_sets()
    undisturbed = customize(sets, run="undisturbed")
    tables.write(tmp_path / "models.parquet", "models", undisturbed)

    trained: list[list[str]] = []
    real = training_loop.train

    def counted(ready: Sequence[EncodedSet], *rest: Any, **named: Any) -> list[training_loop.Trained]:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append([one.name for one in ready])
        return real(ready, *rest, **named)

    monkeypatch.setattr(training_loop, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        customize(sets)
    assert len(contents(tmp_path / "run")) == 4
    monkeypatch.setattr(
        training_loop,
        "train",
        lambda ready, *rest, **named: trained.append([]) or real(ready, *rest, **named),
    )
    resumed = customize(sets)
    assert trained == [["object-0", "object-1"], [], []]
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")
    assert without_time(resumed) == without_time(undisturbed)
    # what it took: a process that has loaded torch holds more than 50 MB
    for row in undisturbed:
        assert row["seconds"] > 0 and row["threads"] == torch.get_num_threads()
        assert 50e6 < row["peak_memory"] < 50e9
        assert row["device"] == "cpu" and row["device_name"]

    # and with nothing missing, nothing is trained, whatever the order of the sets
    turned = customize(sets[::-1])
    assert len(trained) == 3
    assert turned == resumed[::-1]


@pytest.mark.slow
def test_another_run_with_the_same_settings_trains_nothing(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one with a set more trains that one; each notes what it refers to."""
    sets = made.exemplar_sets()
    first = customize(sets[:4])
    trained: list[str] = []
    real = training_loop.train

    def counted(ready: Sequence[EncodedSet], *rest: Any, **named: Any) -> Any:
        trained.extend(one.name for one in ready)
        return real(ready, *rest, **named)

    monkeypatch.setattr(training_loop, "train", counted)
    assert customize(sets[:4], name="other") == first and trained == []
    assert customize([sets[4], *sets[:4]], name="other")[1:] == first and trained == ["style-0"]
    for name, number in (("run", 4), ("other", 5)):
        kind, kept = layout.references(tmp_path / "run" / name)["customize_part/whole"]
        assert kind == "deltas" and len(kept) == number
    for row in first:
        assert (tmp_path / "run" / "other" / row["delta_path"]).is_file()


def test_what_another_job_trains_is_trained_here_only_if_that_was_killed(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = made.exemplar_sets()[:4]
    expected = customize(sets, run="undisturbed")
    folder = tmp_path / "run" / "store" / "deltas"
    folder.mkdir(parents=True)
    held = [expected[0]["model_key"], expected[2]["model_key"]]
    other, trained = Holder(folder, *held), list[list[str]]()
    real = training_loop.train

    def counted(ready: Sequence[EncodedSet], *rest: Any, **named: Any) -> Any:
        trained.append([one.name for one in ready])
        return real(ready, *rest, **named)

    monkeypatch.setattr(training_loop, "train", counted)

    def slept(_: float) -> None:
        for name in (f"{held[1]}.safetensors", f"{held[1]}.token.safetensors", f"{held[1]}.json"):
            (folder / name).write_bytes((tmp_path / "undisturbed/store/deltas" / name).read_bytes())
        other.end()  # one of two is finished

    monkeypatch.setattr(claims.time, "sleep", slept)
    assert without_time(customize(sets)) == without_time(expected)
    assert sorted(trained[-1]) == [sets[0].name]
    assert sorted(name for names in trained for name in names) == sorted(
        one.name for one in sets if one.name != sets[2].name
    )
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")


def test_a_damaged_delta_is_made_again(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    sets = made.exemplar_sets()[:2]
    rows = customize(sets)
    before = contents(tmp_path / "run")
    path = tmp_path / "run" / "run" / rows[0]["delta_path"]
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    (tmp_path / "run" / "run" / rows[1]["token_path"]).unlink()
    assert without_time(customize(sets)) == without_time(rows)
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
def test_part_size_changes_nothing(customize: Callable[..., list[dict[str, Any]]]) -> None:
    sets = made.exemplar_sets()
    whole = customize(sets, run="whole")
    pieces = [
        row for start in (0, 1, 4) for row in customize(sets[start : {0: 1, 1: 4, 4: 5}[start]], run="pieces")
    ]
    assert without_time(whole) == without_time(pieces)


def test_the_key_holds_all_that_a_model_depends_on() -> None:
    one = made.exemplar_sets()[0]
    base: dict[str, Any] = {
        "one": one,
        "base": "b",
        "conditions": {"x": 1},
        "prior_prints": {("object", "fruit"): "p"},
    }
    changes: list[dict[str, Any]] = [
        {"one": replace(one, images={"object-0.0": made.png(77)})},
        {"one": replace(one, name="other")},
        {"one": replace(one, category="animal")},
        {"base": "c"},
        {"conditions": {"x": 2}},
        {"prior_prints": {("object", "fruit"): "q"}},
    ]
    found = {part.model_key(**base), *(part.model_key(**(base | change)) for change in changes)}
    assert len(found) == len(changes) + 1
    assert (
        part.model_key(**(base | {"prior_prints": {("object", "fruit"): "p", ("style", "art"): "z"}}))
        in found
    )


def test_a_loss_that_is_not_finite_fails_its_set_alone(ready: list[EncodedSet], loaded: Components) -> None:
    broken = replace(ready[1], views=ready[1].views * float("nan"))
    found = training_loop.train([ready[0], broken, ready[2]], loaded, METHOD, steps=METHOD.steps, seed=0)
    sound = training_loop.train([ready[0], ready[1], ready[2]], loaded, METHOD, steps=METHOD.steps, seed=0)
    assert isinstance(found[1], training_loop.Failed)
    assert found[1].reason.startswith("exemplar set 'object-1': its loss is nan at step 0;")
    assert same(found[0], sound[0]) and same(found[2], sound[2])


def test_a_set_that_fails_leaves_the_others(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    sets = made.exemplar_sets()
    with pytest.raises(InputError, match=r"'object-0': .* at step 1; customizer.learning_rate 1e\+30"):
        customize(sets[:1], learning_rate=1e30)
    unreadable = replace(sets[1], images={"object-1.0": b"no image"})
    with pytest.raises(InputError, match=r"exemplar object-1.0: 10 bytes are no image"):
        customize([sets[0], unreadable, sets[2]])
    assert len(contents(tmp_path / "run")) == 4
    whole = customize([sets[0], sets[2]], run="whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert len(whole) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"object_prompt": "a {category}"},
            "customizer.object_prompt: 'a {category}' has no {token} for exemplar 'object-0.0'",
        ),
        ({"object_prompt": "a {thing}"}, "customizer.object_prompt: 'a {thing}'; placeholders are {token}"),
        ({"object_prompt": "{token} " + "fruit " * 40}, "tokens, the base model reads 24"),
        ({"stack": 0}, "customizer.stack: 0"),
        ({"step": 3}, "customizer.step: no option of family 'custom_diffusion', did you mean 'steps'"),
    ],
)
def test_wrong_settings(
    customize: Callable[..., list[dict[str, Any]]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        customize(made.exemplar_sets()[:1], **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_images_are_named(customize: Callable[..., list[dict[str, Any]]]) -> None:
    one = replace(made.exemplar_sets()[0], images={"object-0.0": b"no image"})
    with pytest.raises(InputError, match=r"exemplar object-0.0: 10 bytes are no image"):
        customize([one])
    with pytest.raises(InputError, match="no prior image of 'tool' .object.; run the rule prior"):
        customize([replace(made.exemplar_sets()[0], category="tool")])


def test_captions_of_prior_images(loaded: Components, tmp_path: Path) -> None:
    """A long one is cut where the text encoder stops reading; one with the modifier token is refused."""
    path = made.write_prior(tmp_path / "images.parquet", [("object", "fruit")])
    rows = inputs.read_prior(path, [("object", "fruit")])
    rows[1]["prompt"] = "a fruit " * 40
    found = training_data.encode_prior_images(rows, loaded, [("object", "fruit")])["object", "fruit"]
    assert found.prompt_embeds.states.shape[:2] == (3, loaded.tokenizer.model_max_length)
    plain = components.encode_text(loaded, components.tokenize(loaded, [row["prompt"] for row in rows[::2]]))
    torch.testing.assert_close(found.prompt_embeds.states[::2], plain.states)
    rows[2]["prompt"] = f"a {TOKEN} fruit"
    with pytest.raises(InputError, match=f"prior image 'a {TOKEN} fruit' of 'fruit': its prompt has the"):
        training_data.encode_prior_images(rows, loaded, [("object", "fruit")])


def test_without_prior_images(customize: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    rows = customize([replace(made.exemplar_sets()[0], category="tool")], prior_batch=0)
    assert rows[0]["method"] == "custom_diffusion" and np.isfinite(rows[0]["loss"])


def test_stock_diffusers_loads_a_delta(
    customize: Callable[..., list[dict[str, Any]]], tiny_base: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    row = customize(made.exemplar_sets()[:1])[0]
    run = tmp_path / "run" / "run"
    files = run / row["delta_path"], run / row["token_path"]
    delta = delta_files.read(*files, TOKEN, row["checksum"])
    pipe = StableDiffusionPipeline.from_pretrained(
        tiny_base, safety_checker=None, requires_safety_checker=False
    )
    delta_files.load_into(pipe, *files, TOKEN)
    state = pipe.unet.state_dict()
    assert len(delta.weights) == 8 and all(
        torch.equal(state[key], value) for key, value in delta.weights.items()
    )
    with pytest.raises(InputError, match="no weight of the UNet has changed"):
        delta_files.load_into(pipe, *files, TOKEN)


def test_the_scripts(tiny_base: Path, tmp_path: Path, run_script: Callable[..., None]) -> None:
    sets = made.exemplar_sets()
    exemplars = made.write_exemplars(tmp_path / "exemplars.parquet", sets)
    base, images, models = (
        tmp_path / name for name in ("base_model.json", "prior.parquet", "models.parquet")
    )
    tables.write_json(base, description.describe(tiny_base).as_json())
    run_script(
        "prior",
        input={"exemplars": str(exemplars), "base_model": str(base), "pool": [], "excluded": []},
        output={"images": str(images)},
        params={
            "settings": {"family": "generated", "images": 2, "steps": 2, "guidance": 2.0},
            "run": str(tmp_path / "results" / "run"),
            "seed": 1,
            "image_code": "x",
        },
    )
    assert tables.read(images, "prior").num_rows == 6
    checked = families.check("customizers", "custom_diffusion", dict(list(SETTINGS.items())[1:]))
    run_script(
        "customize_part",
        input={"exemplars": str(exemplars), "prior": str(images), "base_model": str(base)},
        output={"models": str(models)},
        params={
            "run": str(tmp_path / "results" / "run"),
            "cut": {"exemplar_sets": 3},
            "settings": {"family": "custom_diffusion"} | checked,
            "seed": 1,
            "model_code": "x",
        },
        wildcards={"part": "0001"},
    )
    table = tables.read(models, "models")
    assert table["exemplar_set"].to_pylist() == ["object-3", "style-0"]
    assert all((tmp_path / "results" / "run" / path).exists() for path in table["token_path"].to_pylist())


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    path = made.write_exemplars(tmp_path / "exemplars.parquet", made.exemplar_sets())
    assert [one.name for one in inputs.read_part(path, 2, 2)] == ["style-0"]
    assert len(inputs.read_part(path, 2, 2)[0].images) == 3
    with pytest.raises(InputError, match="part 3 of 2 sets asked, but it has 5 sets"):
        inputs.read_part(path, 3, 2)
