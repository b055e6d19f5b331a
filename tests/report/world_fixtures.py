"""The images of the simulated run: their contents and latent vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attrib_core.common import hashing
from attrib_core.data.drawing import backgrounds, render
from attrib_core.data.drawing.styles import STYLES
from attrib_core.data.drawing.treatments import MEDIA

SEED = 2306
PARTS = dict(subject=24, category=8, style=12, background=10)


@dataclass(frozen=True)
class Thing:
    """The content of an image, from which it is drawn and its latent vector is computed."""

    name: str
    drawn: render.DrawnObject
    background: str
    treatment: str | None


@dataclass(frozen=True)
class World:
    """Pool rows, exemplar sets, exemplars and queries, with latent vectors."""

    pool: list[Thing]
    sets: list[dict[str, Any]]
    exemplars: list[dict[str, Any]]
    queries: list[dict[str, Any]]
    pool_latent: np.ndarray
    exemplar_latent: np.ndarray
    query_latent: np.ndarray


def _part(kind: str, name: str | None, width: int) -> np.ndarray:
    if name is None:
        return np.zeros(width)
    return hashing.generator("report fixture", kind, name).normal(size=width) / np.sqrt(width)


def latent(subject: str, category: str, style: str | None, background: str | None) -> np.ndarray:
    """Concatenate the latent vectors of subject, category, style and background: (54,) float64."""
    values = dict(subject=subject, category=category, style=style, background=background)
    return np.concatenate([_part(kind, values[kind], width) for kind, width in PARTS.items()])


def build(*, pool: int, object_sets: int, style_sets: int, prompts_each: int, samples_each: int) -> World:
    """Sample the contents of all images and their latent vectors."""
    rng = hashing.generator(SEED, "report fixture")
    drawings, places, media = list(render.objects()), list(backgrounds.BACKGROUNDS), list(MEDIA)
    order = rng.permutation(len(drawings))
    subjects = [drawings[i] for i in order[:object_sets]]
    others = [drawings[i] for i in order[object_sets:]]
    rows = []
    for number in range(pool):
        drawn = others[rng.integers(len(others))]
        treatment = media[rng.integers(len(media))] if rng.uniform() < 0.3 else None
        rows.append(Thing(f"{drawn.codepoint}-{number:05d}", drawn, str(rng.choice(places)), treatment))

    sets: list[dict[str, Any]] = []
    exemplars: list[dict[str, Any]] = []
    names = list(STYLES)
    for number in range(object_sets + style_sets):
        style = names[(number - object_sets) % len(names)] if number >= object_sets else None
        kind = "style" if style else "object"
        within = number - object_sets if style else number
        count = style_sets if style else object_sets
        split = "train" if within < count / 2 else "validation" if within < 0.7 * count else "test"
        category = "art" if style else subjects[within].category
        name = f"{kind}-{within:04d}"
        unseen = split == "test" and kind == "object" and within % 3 == 0
        sets.append(dict(name=name, kind=kind, category=category, style=style, split=split, seen=not unseen))
        for place in range(int(rng.integers(4, 9)) if style else 1):
            drawn = others[rng.integers(len(others))] if style else subjects[within]
            thing = Thing(f"{name}-{place}", drawn, str(rng.choice(places)), style)
            exemplars.append(dict(set=number, thing=thing, position=place))

    queries: list[dict[str, Any]] = []
    for number, entry in enumerate(sets):
        own = [exemplar["thing"] for exemplar in exemplars if exemplar["set"] == number]
        for condition in ("customized", "control"):
            for prompt_kind in ("theme", "object") if entry["style"] else ("scene", "media"):
                for prompt in range(prompts_each):
                    for sample in range(samples_each):
                        queries.append(
                            dict(set=number, condition=condition, prompt_kind=prompt_kind, prompt=prompt,
                                 sample=sample, own=own, others=others)
                        )  # fmt: skip
    return _with_latents(rows, sets, exemplars, queries)


def _with_latents(
    rows: list[Thing],
    sets: list[dict[str, Any]],
    exemplars: list[dict[str, Any]],
    queries: list[dict[str, Any]],
) -> World:
    def of(thing: Thing) -> np.ndarray:
        return latent(thing.drawn.name, thing.drawn.category, thing.treatment, thing.background)

    rng = hashing.generator(SEED, "report fixture", "queries")
    media, places, vectors = list(MEDIA), list(backgrounds.BACKGROUNDS), []
    for query in queries:
        entry, own = sets[query["set"]], query["own"]
        model = own[rng.integers(len(own))]
        same = [drawn for drawn in query["others"] if drawn.category == model.drawn.category]
        stranger = same[rng.integers(len(same))] if same else query["others"][0]
        custom = query["condition"] == "customized"
        if entry["style"]:
            drawn = query["others"][rng.integers(len(query["others"]))]
            treatment = entry["style"] if custom else None
        else:
            drawn = model.drawn if custom else stranger
            treatment = media[query["prompt"] % len(media)] if query["prompt_kind"] == "media" else None
        background = places[(7 * query["prompt"]) % len(places)]
        if entry["kind"] == "object" and query["prompt_kind"] == "media" and custom:
            background = model.background
        name = (
            f"{entry['name']}/{query['condition']}/{query['prompt_kind']}/{query['prompt']}/{query['sample']}"
        )
        query |= dict(thing=Thing(name, drawn, background, treatment), name=name)
        vector = of(query["thing"])
        if custom:
            fidelity = rng.uniform(0.35, 1.0)
            vector = fidelity * vector + (1 - fidelity) * of(model)
        vectors.append(vector + rng.normal(size=vector.size) * 0.11)
    return World(
        rows, sets, exemplars, queries,
        np.stack([of(row) for row in rows]),
        np.stack([of(exemplar["thing"]) for exemplar in exemplars]),
        np.stack(vectors),
    )  # fmt: skip
