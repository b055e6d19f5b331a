"""Stage `prompts`: what each customized model is asked to draw.

A list is a text file with one template a line; empty lines and lines that start with "#" do not
count. A template holds `{token}` once, and may hold `{category}`: "a {token} {category} in the
snow". Of each list a set gets the same number of prompts, chosen by keys, in the list's order.

A prompt that would give the answer away is passed over: one that ends in the words that the
exemplar's own caption has ("in the snow", or raw pixels would match by the background), and one
that names an exemplar's subject.
"""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, close_matches
from attrib_core.data.naming import article

FOLDER = Path(__file__).parent / "prompts_data"
MODIFIER_TOKEN = "<new1>"
PLACEHOLDERS = ("token", "category")


def list_path(name: str) -> Path:
    """File of a list: a path where the name ends in ".txt", else one of `prompts_data`.

    Raises InputError with near names for a list that is not there.
    """
    path = Path(name) if name.endswith(".txt") else FOLDER / f"{name}.txt"
    if path.is_file():
        return path
    if name.endswith(".txt"):
        raise InputError(f"prompts: no file {name!r}")
    known = [file.stem for file in FOLDER.glob("*.txt")]
    raise InputError(
        f"prompts: no list {name!r}, {close_matches(name, known)}; or give a path that ends in .txt"
    )


def read_list(name: str, *, tokens: int = 1) -> list[str]:
    """The templates of a list, each checked to hold `{token}` so many times.

    Raises InputError that names the file and the line.
    """
    path = list_path(name)
    templates = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        template = " ".join(line.split())
        if template and not template.startswith("#"):
            _check(template, f"{path}: line {number}", tokens)
            templates.append(template)
    return templates


def list_of(entry: str | Mapping[str, str], exemplar: Mapping[str, Any]) -> str:
    """The list for the set of an exemplar: the entry itself, or what it names for the set's split."""
    return entry if isinstance(entry, str) else entry[exemplar["split"]]


def names_of(entry: str | Mapping[str, str]) -> list[str]:
    """All lists that an entry of the config names."""
    return [entry] if isinstance(entry, str) else list(entry.values())


def expand(
    exemplars: Iterable[Mapping[str, Any]],
    captions: Mapping[str, str],
    *,
    lists: Mapping[str, Mapping[str, str | Mapping[str, str]]],
    prompts_each: int,
    seed: int,
    modifier_token: str = MODIFIER_TOKEN,
) -> list[dict[str, Any]]:
    """Rows of the table `prompts`: for each exemplar set, `prompts_each` prompts of each list.

    `exemplars` are rows of that table, `captions` their captions by image_id. `lists` names, for
    each kind of set, the lists by prompt kind: {"object": {"scene": "object_scene"}}; a mapping in
    place of a list has one for each split. A `prompt_index` is the position in the list, so that
    numbers may be missing.

    Raises InputError where a list leaves a set too few prompts.
    """
    sets: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in exemplars:
        sets[row["exemplar_set"]].append(row)
    rows: list[dict[str, Any]] = []
    for exemplar_set, members in sets.items():
        kind, category = members[0]["kind"], members[0]["category"]
        if modifier_token in category:
            raise InputError(f"{exemplar_set}: category {category!r} holds the token {modifier_token!r}")
        own = [captions[row["image_id"]] for row in members]
        subjects = [row["subject"] for row in members if row["subject"] is not None]
        for prompt_kind, entry in lists[kind].items():
            name = list_of(entry, members[0])
            templates = read_list(name)
            usable = [
                index
                for index, template in enumerate(templates)
                if not gives_away(template, captions=own, subjects=subjects)
            ]
            if len(usable) < prompts_each:
                raise InputError(
                    f"prompts.prompts_each: {prompts_each} asked, but list {name!r} has {len(usable)} for"
                    f" {exemplar_set!r} (of {len(templates)}, those left out name what its exemplar shows)"
                )
            order = sorted(
                usable, key=lambda index: hashing.digest("prompt", seed, exemplar_set, prompt_kind, index)
            )
            rows += [
                {
                    "exemplar_set": exemplar_set,
                    "prompt_kind": prompt_kind,
                    "prompt_index": index,
                    "prompt": fill(templates[index], category=category, modifier_token=modifier_token),
                    "control_prompt": fill(templates[index], category=category, modifier_token=None),
                }
                for index in sorted(order[:prompts_each])
            ]
    return rows


def class_prompts(category: str, *, name: str) -> list[str]:
    """The prompts of a list without token ("object_prior", "style_prior") for a category."""
    return [fill(template, category=category, modifier_token=None) for template in read_list(name, tokens=0)]


def gives_away(template: str, *, captions: Sequence[str], subjects: Sequence[str]) -> bool:
    """Whether a prompt names what an exemplar shows beside the thing that it stands for.

    That is: the words after the last placeholder, two at least, stand in one of the `captions`;
    or one of the `subjects` stands in the template. Whole words count, in either case of letters.
    """
    ending = template.rpartition("}")[2].strip(" ,.;:!?")
    if len(ending.split()) > 1 and any(_stands_in(ending, caption) for caption in captions):
        return True
    return any(_stands_in(subject, template) for subject in subjects)


def fill(template: str, *, category: str, modifier_token: str | None) -> str:
    """A prompt from a template; with `modifier_token` None the control prompt, token left out.

    An article before the category, and one before a token that is left out, follows the word
    that comes next: "a {token} {category}" is "a <new1> animal", its control "an animal".
    """
    text = re.sub(
        r"\b([Aa])n? \{category\}", lambda found: _article(found[1], category) + " {category}", template
    )
    text = text.replace("{category}", category)
    if modifier_token is not None:
        return text.replace("{token}", modifier_token)
    return without_token(text, "{token}")


def without_token(text: str, token: str) -> str:
    """A prompt without its token, the article before that fitted to the word that comes next.

    "a <new1> animal" is "an animal", so a prompt becomes its control prompt.
    """
    text = re.sub(
        rf"\b([Aa])n? {re.escape(token)} (\S+)",
        lambda found: f"{_article(found[1], found[2])} {found[2]}",
        text,
    )
    text = " ".join(text.replace(token, " ").split())
    return re.sub(r" ([,.;:!?])", r"\1", text)


def _check(template: str, where: str, tokens: int) -> None:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{where}: {template!r}: {error}") from None
    names = [name for _, name, _, _ in pieces if name is not None]
    for _, name, form, conversion in pieces:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            raise InputError(
                f"{where}: {{{name}}} in {template!r}; placeholders are {{token}} and {{category}}"
            )
    if names.count("token") != tokens or MODIFIER_TOKEN in template:
        raise InputError(
            f"{where}: {template!r} has {{token}} {names.count('token')} times; expected {tokens},"
            f" and {MODIFIER_TOKEN!r} nowhere else"
        )


def _article(first_letter: str, noun: str) -> str:
    return first_letter + article(noun)[1:]


def _stands_in(words: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None
