"""Prompts for each customized model, from prompt lists.

A list is a text file with one template per line; empty lines and lines that start with "#" are
skipped. A template has `{token}` once, and may have `{category}`: "a {token} {category} in the
snow". Each exemplar set gets the same number of prompts from each list, chosen by a hash of seed
and set, in the order of the list.

Prompts that leak the exemplar are left out: those that end in words of the exemplar's own
caption ("in the snow"; otherwise raw pixels would match by the background), and those that name
an exemplar's subject.
"""

from __future__ import annotations

import os
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, close_matches, cut, shown, shown_path
from attrib_core.data.naming import article
from attrib_core.storage import text_files

FOLDER = Path(__file__).parent / "prompts_data"
MODIFIER_TOKEN = "<new1>"
PLACEHOLDERS = ("token", "category")


def list_path(name: str) -> Path:
    """Return the file of a list: the name itself if it ends in ".txt", else one of `prompts_data`.

    Raises InputError, with similar names, for a list that does not exist.
    """
    path = Path(name) if name.endswith(".txt") else FOLDER / f"{name}.txt"
    if os.path.isfile(path):  # False, too, for a name that no file can have
        return path
    if name.endswith(".txt"):
        raise InputError(f"prompts: no file {shown_path(name)}")
    known = [file.stem for file in FOLDER.glob("*.txt")]
    raise InputError(
        f"prompts: no list {shown(name)}, {close_matches(name, known)}; or give a path that ends in .txt"
    )


def read_list(name: str, *, tokens: int = 1) -> list[str]:
    """Read the templates of a list; each must have `{token}` exactly `tokens` times.

    Raises InputError with the file and line.
    """
    path = list_path(name)
    templates = []
    for number, line in enumerate(text_files.read(path, expected="list of prompts").splitlines(), start=1):
        template = " ".join(line.split())
        if template and not template.startswith("#"):
            _check(template, f"{path}: line {number}", tokens)
            templates.append(template)
    return templates


def list_for(entry: str | Mapping[str, str], exemplar: Mapping[str, Any]) -> str:
    """Return the list name for an exemplar: the config entry itself, or its value for the exemplar's split."""
    return entry if isinstance(entry, str) else entry[exemplar["split"]]


def list_names(entry: str | Mapping[str, str]) -> list[str]:
    """Return the names of all lists in a config entry."""
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
    """Return the rows of the table `prompts`: `prompts_each` prompts of each list for each exemplar set.

    `exemplars` are rows of that table, `captions` their captions by image_id. `lists` has, for
    each kind of set, the list names by prompt kind: {"object": {"scene": "object_scene"}}; a
    mapping in place of a name has one for each split. `prompt_index` is the position in the list,
    so indices may have gaps.

    Raises InputError where a list has too few usable prompts for a set.
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
            name = list_for(entry, members[0])
            templates = read_list(name)
            usable = [
                index
                for index, template in enumerate(templates)
                if not leaks_exemplar(template, captions=own, subjects=subjects)
            ]
            if len(usable) < prompts_each:
                raise InputError(
                    f"prompts.prompts_each: {prompts_each} requested, but list {name!r} has {len(usable)} for"
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
    """Return the prompts of a list without token ("object_prior", "style_prior") for a category."""
    return [fill(template, category=category, modifier_token=None) for template in read_list(name, tokens=0)]


def leaks_exemplar(template: str, *, captions: Sequence[str], subjects: Sequence[str]) -> bool:
    """Return whether a prompt repeats words that describe an exemplar.

    True if the words after the last placeholder (two or more) occur in one of the `captions`, or
    if one of the `subjects` occurs in the template. Only complete words match, ignoring case.
    """
    ending = template.rpartition("}")[2].strip(" ,.;:!?")
    if len(ending.split()) > 1 and any(_contains(caption, ending) for caption in captions):
        return True
    return any(_contains(template, subject) for subject in subjects)


def fill(template: str, *, category: str, modifier_token: str | None) -> str:
    """Fill in a template; `modifier_token` None gives the control prompt, without the token.

    The article before the category, or before the removed token, is adapted to the next word:
    "a {token} {category}" becomes "a <new1> animal", and "an animal" as control prompt.
    """
    text = re.sub(
        r"\b([Aa])n? \{category\}", lambda found: _article(found[1], category) + " {category}", template
    )
    text = text.replace("{category}", category)
    if modifier_token is not None:
        return text.replace("{token}", modifier_token)
    return without_token(text, "{token}")


def without_token(text: str, token: str) -> str:
    """Remove the token from a prompt, which gives its control prompt.

    The article before the token is adapted to the next word: "a <new1> animal" becomes "an animal".
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
        raise InputError(f"{where}: {shown(template)}: {error}") from None
    names = [name for _, name, _, _ in pieces if name is not None]
    for _, name, form, conversion in pieces:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            raise InputError(
                f"{where}: {{{cut(name)}}} in {shown(template)}; placeholders are {{token}} and {{category}}"
            )
    if names.count("token") != tokens or MODIFIER_TOKEN in template:
        raise InputError(
            f"{where}: {shown(template)} has {{token}} {names.count('token')} times; expected {tokens},"
            f" and {MODIFIER_TOKEN!r} nowhere else"
        )


def _article(first_letter: str, noun: str) -> str:
    return first_letter + article(noun)[1:]


def _contains(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None
