"""User errors in customization: one line names each, and all other sets are trained and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config
from attrib_core.diffusion.customization import training_data
from attrib_core.diffusion.customization.model_stack import ModelStack
from attrib_core.diffusion.customization.training_data import EncodedSet, ExemplarSet
from attrib_core.diffusion.deltas import delta_files
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import FEW_STEPS, TOKEN, stock_pipeline
from tests.diffusion.training_fixtures import stored_deltas


@pytest.fixture
def customize(customize: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
    """The stage with stacks of four sets."""
    return functools.partial(customize, stack=4, style_steps=3)


def files(run: Path) -> list[Path]:
    return [path for path in run.glob("store/deltas/*") if path.is_file()]


@pytest.mark.parametrize("broken", ["unreadable", "damaged", "nan"])
def test_one_bad_set_of_a_stack_fails_by_name_and_the_others_are_kept(
    broken: str,
    customize: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = fixtures.exemplar_sets()
    whole = customize(sets, store="whole")
    given, said = list(sets), "exemplar object-1.0: 8 bytes are no image"
    if broken == "unreadable":
        given[1] = replace(sets[1], images={"object-1.0": b"no image"})
    elif broken == "damaged":
        given[1] = replace(sets[1], images={"object-1.0": sets[1].images["object-1.0"][:60]})
        said = "exemplar object-1.0: the image is damaged"
    else:
        real = training_data.encode_exemplar_set

        def encoded(one: ExemplarSet, *rest: Any, **named: Any) -> EncodedSet:
            ready = real(one, *rest, **named)
            return replace(ready, views=ready.views * float("nan")) if one.name == "object-1" else ready

        monkeypatch.setattr(training_data, "encode_exemplar_set", encoded)
        said = "exemplar set 'object-1': its loss is nan at step 0; customizer.learning_rate 0.004"
    with pytest.raises(InputError) as caught:
        customize(given)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
    # all of the other four are the same as without it, and there is nothing of the bad one
    kept = {row["exemplar_set"]: Path(row["delta_path"]).name for row in whole}
    lost = {
        name for name in stored_deltas(tmp_path / "whole") if name.startswith(kept["object-1"].split(".")[0])
    }
    expected = {name: data for name, data in stored_deltas(tmp_path / "whole").items() if name not in lost}
    assert stored_deltas(tmp_path / "run") == expected and len(expected) == 2 * 4
    assert len(files(tmp_path / "run")) == 3 * 4
    # once it is repaired, only that set is trained
    monkeypatch.undo()
    written = {path: path.stat().st_mtime_ns for path in files(tmp_path / "run")}
    customize(sets)
    assert stored_deltas(tmp_path / "run") == stored_deltas(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_several_bad_sets_are_counted(
    customize: Callable[..., list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    sets = fixtures.exemplar_sets()
    bad = [replace(one, images={f"{one.name}.0": b"x"}) for one in sets[:2]]
    with pytest.raises(InputError, match=r"^exemplar object-0.0: .*\(and 1 more sets failed, see the log\)$"):
        customize([*bad, *sets[2:]])
    assert "exemplar object-1.0: " in caplog.text


def test_weights_that_the_last_step_broke_are_not_stored(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in no loss: the delta itself is checked."""
    sets = fixtures.exemplar_sets()[:3]
    customize([sets[0], sets[2]], store="whole")
    real, calls = ModelStack.update, []

    def update(stack: ModelStack) -> None:
        real(stack)
        calls.append(stack)
        if len(calls) == FEW_STEPS["steps"]:
            with torch.no_grad():
                next(iter(stack._trained))[1].fill_(float("nan"))

    monkeypatch.setattr(ModelStack, "update", update)
    with pytest.raises(InputError, match=r"^exemplar set 'object-1': a weight is nan at step 1; customizer"):
        customize(sets)
    assert stored_deltas(tmp_path / "run") == stored_deltas(tmp_path / "whole")


def test_a_token_that_the_tokenizer_has(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    for token in ("fruit", " "):
        with pytest.raises(
            InputError, match=f"^modifier token '{token}': the tokenizer of .* already has it"
        ):
            customize(fixtures.exemplar_sets(), token=token)
    assert files(tmp_path / "run") == []


def test_a_prompt_without_the_token(customize: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    """Found in the config; in the stage also where brackets with the token are left out for one exemplar."""
    for prompt in ("a {category}", "a picture[ of {subject} by {token}]"):
        for kind in ("object", "style"):
            with pytest.raises(InputError) as caught:
                load_config({"customizer": {"family": "custom_diffusion", f"{kind}_prompt": prompt}})
            assert str(caught.value).startswith(
                f"customizer.{kind}_prompt: {prompt!r} has no {{token}} outside"
            )
    style = replace(fixtures.exemplar_sets()[4], subjects={"style-0.0": "owl", "style-0.2": "owl"})
    with pytest.raises(
        InputError, match=r"^customizer.style_prompt: .* has no {token} for exemplar 'style-0.1'"
    ):
        customize([fixtures.exemplar_sets()[0], style], style_prompt="a picture[ of {subject} by {token}]")
    assert len(stored_deltas(tmp_path / "run")) == 2  # of the object set


def test_a_delta_that_does_not_fit_a_stock_pipeline(
    customize: Callable[..., list[dict[str, Any]]], tiny_base: Path, tmp_path: Path
) -> None:
    row = customize(fixtures.exemplar_sets()[:1])[0]
    delta, token = (tmp_path / "run" / "run" / row[name] for name in ("delta_path", "token_path"))
    pipe = stock_pipeline(tiny_base)
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    weights, (key, *_) = load_file(delta), sorted(load_file(delta))
    other, short = tmp_path / "other.safetensors", tmp_path / "short.safetensors"
    save_file({TOKEN: load_file(token)[TOKEN][:31].clone()}, short)
    for changed, tokens, said in [
        (
            weights | {"no.such.weight": weights[key]},
            token,
            r"'no\.such\.weight' is not in the pipeline's UNet",
        ),
        (
            weights | {key: weights[key][:3].clone()},
            token,
            r"has shape \(3, 32\), the pipeline's UNet \(64, 32\)",
        ),
        (weights, short, rf"token '{TOKEN}' has 31 values, the pipeline's text encoder 32"),
    ]:
        save_file({name: value.clone() for name, value in changed.items()}, other)
        with pytest.raises(InputError, match=said):
            delta_files.load_into(pipe, other, tokens, TOKEN)
    # and the pipeline has not changed
    assert all(torch.equal(before[name], value) for name, value in pipe.unet.state_dict().items())
    assert TOKEN not in pipe.tokenizer.get_vocab()
    delta_files.load_into(pipe, delta, token, TOKEN)


def test_a_set_that_fails_leaves_the_others(
    customize: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    sets = fixtures.exemplar_sets()
    with pytest.raises(InputError, match=r"'object-0': .* at step 1; customizer.learning_rate 1e\+30"):
        customize(sets[:1], learning_rate=1e30)
    unreadable = replace(sets[1], images={"object-1.0": b"no image"})
    with pytest.raises(InputError, match=r"exemplar object-1.0: 8 bytes are no image"):
        customize([sets[0], unreadable, sets[2]])
    assert len(stored_deltas(tmp_path / "run")) == 4
    whole = customize([sets[0], sets[2]], store="whole")
    assert stored_deltas(tmp_path / "run") == stored_deltas(tmp_path / "whole")
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
        customize(fixtures.exemplar_sets()[:1], **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_images_are_named(customize: Callable[..., list[dict[str, Any]]]) -> None:
    one = replace(fixtures.exemplar_sets()[0], images={"object-0.0": b"no image"})
    with pytest.raises(InputError, match=r"exemplar object-0.0: 8 bytes are no image"):
        customize([one])
    with pytest.raises(InputError, match="no prior image of 'tool' .object.; run the rule prior"):
        customize([replace(fixtures.exemplar_sets()[0], category="tool")])
