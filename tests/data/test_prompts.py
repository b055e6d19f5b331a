"""Prompts: the token once, controls without it, articles, the base model's vocabulary, no leaks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from attrib_core.common.errors import InputError
from attrib_core.data import prompts
from attrib_core.data.drawing import backgrounds, held_out, render
from attrib_core.data.drawing.treatments import MEDIA

OBJECT = {"scene": "object_scene", "media": "object_media"}
STYLE = {"theme": "style_theme", "object": "style_object"}
LISTS = {"object": OBJECT, "style": STYLE}


def exemplar(
    exemplar_set: str, kind: str, category: str, subject: str | None, index: int = 0
) -> dict[str, Any]:
    return {
        "exemplar_set": exemplar_set,
        "image_id": f"{exemplar_set}.{index}",
        "kind": kind,
        "category": category,
        "subject": subject,
    }


EXEMPLARS = [
    exemplar("object-000-skunk", "object", "animal", "skunk"),
    exemplar("object-001-fork", "object", "household item", "fork"),
    exemplar("object-002-ant", "object", "insect", "ant"),
    exemplar("style-000-op-art", "style", "art", "star", 0),
    exemplar("style-000-op-art", "style", "art", "owl", 1),
]
CAPTIONS = {
    "object-000-skunk.0": "a skunk in the snow",
    "object-001-fork.0": "a fork on a red background",
    "object-002-ant.0": "an ant under the sea",
    "style-000-op-art.0": "op art of a star",
    "style-000-op-art.1": "op art of an owl",
}


def expanded(**changes: Any) -> list[dict[str, Any]]:
    options = {"lists": LISTS, "prompts_each": 5, "seed": 3} | changes
    return prompts.expand(EXEMPLARS, CAPTIONS, **options)


def test_every_set_gets_its_prompts() -> None:
    rows = expanded()
    counts = Counter((row["exemplar_set"], row["prompt_kind"]) for row in rows)
    assert counts == {
        (name, kind): 5
        for name in dict.fromkeys(row["exemplar_set"] for row in EXEMPLARS)
        for kind in (OBJECT if name.startswith("object") else STYLE)
    }
    for name, kind in counts:
        indices = [
            row["prompt_index"] for row in rows if (row["exemplar_set"], row["prompt_kind"]) == (name, kind)
        ]
        assert indices == sorted(set(indices)), "in the order of the list, each once"
    assert (
        len({tuple(row["prompt_index"] for row in rows if row["exemplar_set"] == name) for name, _ in counts})
        > 1
    )


def test_token_once_and_not_in_the_control() -> None:
    for row in expanded():
        assert row["prompt"].count("<new1>") == 1
        assert "<new1>" not in row["control_prompt"]
        for text in (row["prompt"], row["control_prompt"]):
            assert text == " ".join(text.split()) and "{" not in text


def test_index_is_that_of_the_template() -> None:
    for row in expanded():
        kind = "object" if row["exemplar_set"].startswith("object") else "style"
        template = prompts.read_list(LISTS[kind][row["prompt_kind"]])[row["prompt_index"]]
        category = next(one["category"] for one in EXEMPLARS if one["exemplar_set"] == row["exemplar_set"])
        assert row["prompt"] == template.replace("{token}", "<new1>").replace("{category}", category)


def test_own_scene_and_own_objects_are_left_out() -> None:
    rows = expanded(
        prompts_each=8, lists={"object": {"scene": "object_scene"}, "style": {"object": "style_object"}}
    )
    of_set = {
        name: [row["prompt"] for row in rows if row["exemplar_set"] == name] for name in CAPTIONS_BY_SET
    }
    assert not any("in the snow" in prompt for prompt in of_set["object-000-skunk"])
    assert not any("red background" in prompt for prompt in of_set["object-001-fork"])
    assert not any("under the sea" in prompt for prompt in of_set["object-002-ant"])
    assert not any(" star " in prompt or " owl " in prompt for prompt in of_set["style-000-op-art"])
    assert any("in the snow" in prompt for name in of_set for prompt in of_set[name])


CAPTIONS_BY_SET = dict.fromkeys(row["exemplar_set"] for row in EXEMPLARS)


@pytest.mark.parametrize(
    ("template", "captions", "subjects", "expected"),
    [
        ("a {token} {category} in the snow", ["a fox in the snow"], [], True),
        ("a {token} {category} in the snow", ["A FOX IN THE SNOW."], [], True),
        ("a {token} {category} in the snow", ["a fox in the snowfall"], [], False),
        ("a {token} {category} in the snow", ["a fox", "a fox in the snow"], [], True),
        ("a mosaic of a {token} {category}", ["a mosaic of a fox"], [], False),
        ("a star in the style of {token} art", ["op art of a fox"], ["fox"], False),
        ("a star in the style of {token} art", ["op art of a star"], ["star"], True),
        ("a star in the style of {token} art", [], ["sta"], False),
    ],
)
def test_leaks_exemplar(template: str, captions: list[str], subjects: list[str], expected: bool) -> None:
    assert prompts.leaks_exemplar(template, captions=captions, subjects=subjects) is expected


@pytest.mark.parametrize(
    ("template", "category", "prompt", "control"),
    [
        ("a {token} {category} in the snow", "fruit", "a <new1> fruit in the snow", "a fruit in the snow"),
        (
            "a {token} {category} in the snow",
            "animal",
            "a <new1> animal in the snow",
            "an animal in the snow",
        ),
        ("A {token} {category}", "animal", "A <new1> animal", "An animal"),
        ("an {token} {category}", "tool", "an <new1> tool", "a tool"),
        (
            "a picture of an animal in the style of {token} art",
            "art",
            "a picture of an animal in the style of <new1> art",
            "a picture of an animal in the style of art",
        ),
        ("{token} {category}", "fish", "<new1> fish", "fish"),
        ("a {category} like {token}", "insect", "an insect like <new1>", "an insect like"),
        ("a {category} , {token}, in oil", "tool", "a tool , <new1>, in oil", "a tool,, in oil"),
        ("a {token} owl", "bird", "a <new1> owl", "an owl"),
    ],
)
def test_fill(template: str, category: str, prompt: str, control: str) -> None:
    assert prompts.fill(template, category=category, modifier_token="<new1>") == prompt
    assert prompts.fill(template, category=category, modifier_token=None) == control


def vocabulary() -> set[str]:
    """All words of captions that the base model may be trained on."""
    words = set("a an of in the style art picture".split())
    unknown = {one.name for one in held_out.held_out_objects()}
    texts = [backgrounds.phrase(name) for name in backgrounds.BACKGROUNDS]
    texts += list(MEDIA)
    texts += [f"{one.name} {one.category}" for one in render.objects() if one.name not in unknown]
    return words | {word for text in texts for word in text.split()}


@pytest.mark.parametrize("name", [*OBJECT.values(), *STYLE.values(), "object_prior", "style_prior"])
def test_lists_use_the_vocabulary_of_the_base_model(name: str) -> None:
    templates = prompts.read_list(name, tokens=0 if name.endswith("prior") else 1)
    assert len(templates) >= 8 and len(set(templates)) == len(templates)
    known = vocabulary()
    for template in templates:
        assert not set(template.replace("{token}", "").replace("{category}", "").split()) - known, template


def test_scenes_and_media_are_those_of_the_images() -> None:
    phrases = {backgrounds.phrase(name) for name in backgrounds.BACKGROUNDS}
    for template in prompts.read_list("object_scene"):
        assert template.removeprefix("a {token} {category} ") in phrases
    media = {f"{render.with_article(medium)} of a {{token}} {{category}}" for medium in MEDIA}
    assert set(prompts.read_list("object_media")) == media


def test_style_objects_are_not_held_out_and_themes_are_categories() -> None:
    unknown = set(held_out.held_out_objects())
    known = {render.with_article(one.name) for one in render.objects() if one not in unknown}
    coarse = {render.with_article(one.category) for one in render.objects()}
    for name, nouns in (("style_object", known), ("style_theme", coarse)):
        for template in prompts.read_list(name):
            noun = template.removeprefix("a picture of ").removesuffix(" in the style of {token} art")
            assert noun in nouns


def test_class_prompts() -> None:
    found = prompts.class_prompts("animal", name="object_prior")
    assert found[0] == "an animal" and "an animal in the snow" in found and "a mosaic of an animal" in found
    assert all("in the style of" in prompt for prompt in prompts.class_prompts("art", name="style_prior"))


def test_too_few_prompts_are_named() -> None:
    with pytest.raises(InputError) as caught:
        expanded(prompts_each=12)
    assert "prompts.prompts_each: 12" in str(caught.value) and "'object_scene' has 11" in str(caught.value)
    assert "object-000-skunk" in str(caught.value)


def test_a_list_of_the_user(tmp_path: Path) -> None:
    own = tmp_path / "mine.txt"
    own.write_text("# mine\n\n  a   {token} {category} at sea \n")
    assert prompts.read_list(str(own)) == ["a {token} {category} at sea"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a {category} in the snow", "has {token} 0 times; expected 1"),
        ("a {token} {token}", "has {token} 2 times; expected 1"),
        ("a {token} {object}", "{object}"),
        ("a {token!r}", "{token}"),
        ("a {token", "expected"),
        ("a {token} <new1>", "'<new1>' nowhere else"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    own = tmp_path / "mine.txt"
    own.write_text(f"a {{token}} good one\n{line}\n")
    with pytest.raises(InputError) as caught:
        prompts.read_list(str(own))
    assert f"{own}: line 2" in str(caught.value) and message in str(caught.value)


def test_unknown_lists_are_named() -> None:
    with pytest.raises(InputError, match=r"no list 'object_scenes', did you mean 'object_scene'"):
        prompts.read_list("object_scenes")
    with pytest.raises(InputError, match=r"no file 'nowhere\.txt'"):
        prompts.read_list("nowhere.txt")


def test_a_category_with_the_token_is_refused() -> None:
    wrong = [exemplar("object-000-x", "object", "<new1> thing", "x")]
    with pytest.raises(InputError, match="object-000-x: category"):
        prompts.expand(wrong, {"object-000-x.0": "x"}, lists=LISTS, prompts_each=1, seed=0)


def test_another_token() -> None:
    rows = expanded(modifier_token="<sks>")
    assert all(row["prompt"].count("<sks>") == 1 for row in rows)


def test_prompts_of_a_set_do_not_depend_on_other_sets() -> None:
    alone = prompts.expand(EXEMPLARS[1:2], CAPTIONS, lists=LISTS, prompts_each=5, seed=3)
    assert alone == [row for row in expanded() if row["exemplar_set"] == "object-001-fork"]


def test_a_list_for_each_split() -> None:
    by_split = {
        "train": "published_media_train",
        "validation": "object_media",
        "test": "published_media_test",
    }
    same = {"kind": "object", "category": "bird", "subject": None}
    rows = [same | {"exemplar_set": split, "split": split, "image_id": split} for split in by_split]
    captions = dict.fromkeys(by_split, "")
    found = prompts.expand(rows, captions, lists={"object": {"media": by_split}}, prompts_each=2, seed=1)
    for row in found:
        template = prompts.read_list(by_split[row["exemplar_set"]])[row["prompt_index"]]
        assert row["prompt"] == prompts.fill(template, category="bird", modifier_token="<new1>")
    assert len(found) == 6


def test_published_lists() -> None:
    """Their lengths, and that no medium of the test models is one of the others."""
    names = ("media_test", "media_train", "style_theme", "style_object")
    length = {name: len(prompts.read_list(f"published_{name}")) for name in names}
    assert length == {"media_test": 10, "media_train": 34, "style_theme": 10, "style_object": 10}
    assert not set(prompts.read_list("published_media_test")) & set(
        prompts.read_list("published_media_train")
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in prompts.FOLDER.glob("*.txt")))
def test_a_prompt_without_its_token_is_the_control_prompt(name):
    if "prior" in name:
        return  # these lists have no token
    for template in prompts.read_list(name):
        for category in ("animal", "fruit", "art"):
            prompt, control = (
                prompts.fill(template, category=category, modifier_token=token) for token in ("<new1>", None)
            )
            assert prompts.without_token(prompt, "<new1>") == control != prompt
            assert prompts.without_token(control, "<new1>") == control
