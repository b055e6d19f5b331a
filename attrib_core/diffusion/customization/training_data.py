"""What a model is trained on: an exemplar set in the form of latents and token ids, made once."""

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
from attrib_core.diffusion.customization.augmentation import Augmentation, View, flipped, resized
from attrib_core.diffusion.customization.method import BRACKETS, PLACEHOLDERS
from attrib_core.diffusion.pipeline import components as parts
from attrib_core.diffusion.pipeline import cropping
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.pipeline.latents import encode_images
from attrib_core.diffusion.pipeline.prompt_encoding import PromptEmbeds

STYLE_NOUN = "art"
NONE = Augmentation()


@dataclass(frozen=True)
class ExemplarSet:
    """The exemplars of one model: encoded images by exemplar_id, in the order of the table.

    subjects: what an exemplar shows, by exemplar_id, where that is known.
    """

    name: str
    kind: str
    category: str
    images: dict[str, bytes]
    subjects: dict[str, str] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """The word that the modifier token starts as."""
        return STYLE_NOUN if self.kind == "style" else self.category


@dataclass(frozen=True)
class EncodedPrior:
    """Prior images of a class: latents (n, channels, height, width) and the text of their n prompts.

    sizes: where they come from, (n, 6), see `cropping.micro_conditioning`.
    """

    latents: torch.Tensor
    prompt_embeds: PromptEmbeds
    sizes: torch.Tensor


@dataclass(frozen=True)
class EncodedSet:
    """An exemplar set ready for training.

    views: latents of the exemplars and of moved and scaled views of them, (views,
    channels, height, width). ids: the training prompt of each view, (views, length). sizes: of
    the exemplar of each view, (views, 6), see `cropping.micro_conditioning`. masks: where the loss of a
    view counts, (views, 1, height, width) of 0 and 1; None for everywhere.
    """

    name: str
    noun: str
    views: torch.Tensor
    ids: torch.Tensor
    sizes: torch.Tensor
    prior: EncodedPrior | None
    masks: torch.Tensor | None = None


def training_prompts(one: ExemplarSet, templates: Mapping[str, str], token: str) -> list[str]:
    """The prompts that a set trains with, one for each exemplar, from the templates by kind.

    `{subject}` in a template is what the exemplar shows, with its article ("an owl"): so
    named, it is left to the words that the base model knows, and the token takes on what
    they do not say, the style. What stands in square brackets, as in "a picture[ of {subject}]
    in the style of {token} art", is left out for an exemplar without a subject.

    Raises InputError for a template without the token or with an unknown placeholder, and for
    an exemplar without a subject where the template cannot do without.
    """
    template = templates[one.kind]
    where = f"customizer.{one.kind}_prompt"
    prompts = []
    for exemplar in one.images:
        known = {"token": token, "category": one.category}
        if exemplar in one.subjects:
            known["subject"] = f"{article(one.subjects[exemplar])} {one.subjects[exemplar]}"
        try:
            shown = BRACKETS.sub(r"\1" if "subject" in known else "", template)
            prompts.append(shown.format(**known))
        except KeyError as missing:
            if missing.args[0] != "subject":
                raise InputError(f"{where}: {template!r}; {PLACEHOLDERS}") from None
            raise InputError(
                f"{where}: {template!r} asks for {{subject}}, but exemplar {exemplar!r} has none in its table"
            ) from None
        except (IndexError, ValueError):
            raise InputError(f"{where}: {template!r}; {PLACEHOLDERS}") from None
    for exemplar, prompt in zip(one.images, prompts, strict=True):
        if token not in prompt:
            raise InputError(
                f"{where}: {template!r} has no {{token}} for exemplar {exemplar!r}, and nothing would be learned by it"
            )
    return prompts


def encode_exemplar_set(
    one: ExemplarSet,
    components: Components,
    *,
    prompts: Sequence[str],
    prior: EncodedPrior | None,
    views: int,
    scale_jitter: float,
    shift: float,
    seed: int,
    augmentation: Augmentation = NONE,
) -> EncodedSet:
    """Encode a set: every exemplar as it is, and as many moved and scaled views of each as make `views`.

    `prompts` has one for each exemplar, which its views share. With `augmentation.random_resize`
    all views are those of `augmentation.resized`, and none is the exemplar as it is.
    """
    side = components.base.resolution
    decoded = [to_rgb(data, where=f"exemplar {name}") for name, data in one.images.items()]
    originals = [cropping.center_crop(image, side) for image in decoded]
    sizes = torch.tensor([cropping.micro_conditioning(len(image), image.shape[1], side) for image in decoded])
    rounds = -(-views // len(originals))
    made: list[View] = []
    cells = components.latent_shape[1]
    everywhere = np.ones((cells, cells), dtype=bool)
    for number in range(rounds):
        for position, image in enumerate(originals):
            rng = hashing.generator("view", seed, one.name, position, number)
            if augmentation.random_resize:
                turned = flipped(image, rng) if augmentation.horizontal_flip else image
                made.append(resized(turned, rng, cells))
                continue
            seen = image
            if number > 0:
                seen = moved(image, rng, scale_jitter=scale_jitter, shift=shift)
                seen = flipped(seen, rng) if augmentation.horizontal_flip else seen
            made.append(View(seen, everywhere, ""))
    said = [
        (view.words if augmentation.size_prompts else "") + prompts[number % len(originals)]
        for number, view in enumerate(made)
    ]
    masks = None
    if augmentation.random_resize and augmentation.loss_mask:
        masks = torch.from_numpy(np.stack([view.mask for view in made]))[:, None].float()
        masks = masks.to(components.device)
    return EncodedSet(
        name=one.name,
        noun=one.noun,
        views=encode_images(components, np.stack([view.image for view in made])),
        ids=_tokenized_once(components, said),
        sizes=sizes.repeat(rounds, 1),
        prior=prior,
        masks=masks,
    )


def _tokenized_once(components: Components, prompts: Sequence[str]) -> torch.Tensor:
    """Prompts as (prompts, length) ids; each different one passes the tokenizer once."""
    different = list(dict.fromkeys(prompts))
    places = {prompt: place for place, prompt in enumerate(different)}
    return parts.tokenize(components, different)[[places[prompt] for prompt in prompts]]


def moved(image: np.ndarray, rng: np.random.Generator, *, scale_jitter: float, shift: float) -> np.ndarray:
    """An image scaled and shifted at random, (side, side, 3) uint8; its border is continued outwards.

    The scale is uniform in 1 +- scale_jitter, the shifts uniform in +- shift of
    the side. Never mirrored: left and right tell objects apart.
    """
    side = image.shape[0]
    scale = 1 + rng.uniform(-scale_jitter, scale_jitter)
    across, down = rng.uniform(-shift, shift, 2) * side
    margin = int(np.ceil(side * (scale_jitter / (1 - scale_jitter) + shift / (1 - scale_jitter)))) + 2
    wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    middle = side / 2
    left, top = (margin + middle - (middle + offset) / scale for offset in (across, down))
    # output pixel (x, y) is taken from (x / scale + left, y / scale + top)
    shown = Image.fromarray(wide).transform(
        (side, side),
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        resample=Image.Resampling.BICUBIC,
    )
    return np.asarray(shown)


@torch.no_grad()
def encode_prior_images(
    rows: Iterable[Mapping[str, Any]], components: Components, wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], EncodedPrior]:
    """Rows of the table `prior` as latents and text, by (kind, category), for the classes wanted."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {name: [] for name in wanted}
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
        images = [cropping.center_crop(image, side) for image in decoded]
        captions = [row["prompt"] for row in members]
        ids = parts.tokenize_captions(components, captions)
        if (known := parts.has_token(components, ids)).any():
            raise InputError(
                f"prior image {captions[int(known.int().argmax())]!r} of {name[1]!r}: its prompt has the modifier"
                " token, which the base model does not know; expected a prompt without it"
            )
        found[name] = EncodedPrior(
            latents=encode_images(components, np.stack(images)),
            prompt_embeds=parts.encode_text(components, ids),
            sizes=torch.tensor(
                [cropping.micro_conditioning(len(image), image.shape[1], side) for image in decoded]
            ),
        )
    return found
