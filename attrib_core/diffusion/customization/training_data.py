"""Training data of a model: an exemplar set and its prior images, encoded once to latents and token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.data.images import to_rgb
from attrib_core.data.naming import article
from attrib_core.diffusion.customization.augmentation import View, flipped, resized
from attrib_core.diffusion.customization.method import BRACKETS, PLACEHOLDERS, Customizer
from attrib_core.diffusion.pipeline.components import (
    Components,
    encode_text,
    has_token,
    tokenize,
    tokenize_captions,
)
from attrib_core.diffusion.pipeline.cropping import center_crop, micro_conditioning
from attrib_core.diffusion.pipeline.latents import encode_images
from attrib_core.diffusion.pipeline.prompt_encoding import PromptEmbeds

STYLE_NOUN = "art"


@dataclass(frozen=True)
class ExemplarSet:
    """The exemplars of one model: encoded images by exemplar_id, in the order of the table.

    subjects: the subject of an exemplar, by exemplar_id, where it is known.
    """

    name: str
    kind: str
    category: str
    images: dict[str, bytes]
    subjects: dict[str, str] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """The word that initializes the modifier token."""
        return STYLE_NOUN if self.kind == "style" else self.category


@dataclass(frozen=True)
class EncodedPrior:
    """The prior images of a class: latents (n, channels, height, width) and the embeddings of their n prompts.

    sizes: micro-conditioning of the images, (n, 6), see `micro_conditioning`.
    """

    latents: torch.Tensor
    prompt_embeds: PromptEmbeds
    sizes: torch.Tensor


@dataclass(frozen=True)
class EncodedSet:
    """An exemplar set ready for training.

    views: latents of the exemplars and of shifted and scaled views of them, (views, channels, height, width). ids:
    the training prompt of each view, (views, length). sizes: micro-conditioning of the exemplar of each view,
    (views, 6), see `micro_conditioning`. masks: where the loss of a view counts, (views, 1, height, width) of 0 and
    1; None for everywhere.
    """

    name: str
    noun: str
    views: torch.Tensor
    ids: torch.Tensor
    sizes: torch.Tensor
    prior: EncodedPrior | None
    masks: torch.Tensor | None = None


def training_prompts(exemplars: ExemplarSet, templates: Mapping[str, str], token: str) -> list[str]:
    """Fill in the template of the set's kind, one prompt for each exemplar.

    `{subject}` in a template is the subject of the exemplar with its article ("an owl"). With the subject in words
    that the base model knows, the token learns what these do not describe, the style. Text in square brackets, as in
    "a picture[ of {subject}] in the style of {token} art", is left out for an exemplar without a subject.

    Raises InputError for a template without the token or with an unknown placeholder, and for an exemplar without a
    subject where the template requires one.
    """
    template = templates[exemplars.kind]
    where = f"customizer.{exemplars.kind}_prompt"
    prompts = []
    for exemplar in exemplars.images:
        known = {"token": token, "category": exemplars.category}
        if exemplar in exemplars.subjects:
            subject = exemplars.subjects[exemplar]
            known["subject"] = f"{article(subject)} {subject}"
        try:
            text = BRACKETS.sub(r"\1" if "subject" in known else "", template)
            prompts.append(text.format(**known))
        except KeyError as missing:
            if missing.args[0] != "subject":
                raise InputError(f"{where}: {template!r}; {PLACEHOLDERS}") from None
            raise InputError(
                f"{where}: {template!r} asks for {{subject}}, but exemplar {exemplar!r} has none in its table"
            ) from None
        except (IndexError, ValueError):
            raise InputError(f"{where}: {template!r}; {PLACEHOLDERS}") from None
        if token not in prompts[-1]:
            raise InputError(
                f"{where}: {template!r} has no {{token}} for exemplar {exemplar!r}, and nothing would be learned by it"
            )
    return prompts


def encode_exemplar_set(
    exemplars: ExemplarSet,
    components: Components,
    method: Customizer,
    *,
    prompts: Sequence[str],
    prior: EncodedPrior | None,
    seed: int,
) -> EncodedSet:
    """Encode a set: each exemplar unchanged, and as many shifted and scaled views of each as make `method.views`.

    `prompts` has one for each exemplar, which its views share. With `method.random_resize` all views are those of
    `augmentation.resized`, and none is the unchanged exemplar.
    """
    side = components.base.resolution
    decoded = [to_rgb(data, where=f"exemplar {name}") for name, data in exemplars.images.items()]
    originals = [center_crop(image, side) for image in decoded]
    sizes = torch.tensor([micro_conditioning(len(image), image.shape[1], side) for image in decoded])
    rounds = -(-method.views // len(originals))
    views: list[View] = []
    cells = components.latent_shape[1]
    everywhere = np.ones((cells, cells), dtype=bool)
    for number in range(rounds):
        for position, image in enumerate(originals):
            rng = hashing.generator("view", seed, exemplars.name, position, number)
            if method.random_resize:
                turned = flipped(image, rng) if method.horizontal_flip else image
                views.append(resized(turned, rng, cells))
                continue
            view = image
            if number > 0:
                view = jittered(image, rng, scale_jitter=method.scale_jitter, shift=method.shift)
                view = flipped(view, rng) if method.horizontal_flip else view
            views.append(View(view, everywhere, ""))
    view_prompts = [
        (view.prompt_prefix if method.size_prompts else "") + prompts[number % len(originals)]
        for number, view in enumerate(views)
    ]
    masks = None
    if method.random_resize and method.loss_mask:
        masks = torch.from_numpy(np.stack([view.mask for view in views]))[:, None].float()
        masks = masks.to(components.device)
    return EncodedSet(
        name=exemplars.name,
        noun=exemplars.noun,
        views=encode_images(components, np.stack([view.image for view in views])),
        ids=_tokenize_distinct(components, view_prompts),
        sizes=sizes.repeat(rounds, 1),
        prior=prior,
        masks=masks,
    )


def _tokenize_distinct(components: Components, prompts: Sequence[str]) -> torch.Tensor:
    """Tokenize prompts to ids, (prompts, length), each distinct one once."""
    distinct = list(dict.fromkeys(prompts))
    positions = {prompt: position for position, prompt in enumerate(distinct)}
    return tokenize(components, distinct)[[positions[prompt] for prompt in prompts]]


def jittered(image: np.ndarray, rng: np.random.Generator, *, scale_jitter: float, shift: float) -> np.ndarray:
    """Scale and shift an image at random, (side, side, 3) uint8; edge pixels are repeated outwards.

    The scale is uniform in 1 +- scale_jitter, the shifts uniform in +- shift of the side. Never mirrored: left and
    right tell objects apart.
    """
    side = image.shape[0]
    scale = 1 + rng.uniform(-scale_jitter, scale_jitter)
    across, down = rng.uniform(-shift, shift, 2) * side
    margin = int(np.ceil(side * (scale_jitter / (1 - scale_jitter) + shift / (1 - scale_jitter)))) + 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    middle = side / 2
    left, top = (margin + middle - (middle + offset) / scale for offset in (across, down))
    # output pixel (x, y) is taken from (x / scale + left, y / scale + top)
    transformed = Image.fromarray(padded).transform(
        (side, side),
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        resample=Image.Resampling.BICUBIC,
    )
    return np.asarray(transformed)


@torch.no_grad()
def encode_prior_images(
    rows: Iterable[Mapping[str, Any]], components: Components, classes: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], EncodedPrior]:
    """Encode rows of the table `prior`, for the given classes; by (kind, category).

    Raises InputError for a class without rows, and for a prompt with the modifier token.
    """
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {name: [] for name in classes}
    for row in rows:
        if (row["kind"], row["category"]) in grouped:
            grouped[row["kind"], row["category"]].append(row)
    found = {}
    for name, members in grouped.items():
        if not members:
            raise InputError(
                f"prior/images.parquet: no prior image of {name[1]!r} ({name[0]}); run the rule prior"
            )
        side = components.base.resolution
        decoded = [to_rgb(row["image"]["bytes"], where=f"prior image {row['prompt']!r}") for row in members]
        images = [center_crop(image, side) for image in decoded]
        captions = [row["prompt"] for row in members]
        ids = tokenize_captions(components, captions)
        if (with_token := has_token(components, ids)).any():
            raise InputError(
                f"prior image {captions[int(with_token.int().argmax())]!r} of {name[1]!r}: its prompt has the modifier"
                " token, which the base model does not know; expected a prompt without it"
            )
        found[name] = EncodedPrior(
            latents=encode_images(components, np.stack(images)),
            prompt_embeds=encode_text(components, ids),
            sizes=torch.tensor([micro_conditioning(len(image), image.shape[1], side) for image in decoded]),
        )
    return found
