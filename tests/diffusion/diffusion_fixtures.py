"""A base model of the bundled one's shape, narrower and untrained, saved as a diffusers folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attrib_core.diffusion.customization.training_data import ExemplarSet
from attrib_core.storage import tables

CAPTIONS = [
    "a fruit on a red background",
    "an animal in the snow",
    "a picture of a fruit in the style of mosaic art",
    "a charcoal drawing of an animal under the sea",
]
SIDE = 32


def save_base(folder: Path, *, prediction_type: str = "v_prediction", held_out: str | None = None) -> Path:
    """Write the pipeline; seeded, so that two folders of one kind hold the same bytes."""
    from transformers import CLIPTokenizer

    from attrib_core.diffusion.base_recipe import autoencoder, denoiser
    from attrib_core.diffusion.base_recipe.export import pipeline
    from attrib_core.diffusion.base_recipe.tokenizer import train_tokenizer

    torch.manual_seed(0)
    train_tokenizer(CAPTIONS, 600, 24, folder.with_name(f"{folder.name}-tokenizer"))
    tokenizer = CLIPTokenizer.from_pretrained(folder.with_name(f"{folder.name}-tokenizer"))
    unet = denoiser.build_unet([32, 64], 4, SIDE // 4, 32)
    vae = autoencoder.build([16, 16, 16], 4, SIDE)
    pipe = pipeline(vae, unet, denoiser.build_text_encoder(tokenizer, 32, 2), tokenizer)
    if prediction_type != "v_prediction":
        # as in Stable Diffusion v1.4
        pipe.scheduler.register_to_config(
            prediction_type=prediction_type, rescale_betas_zero_snr=False, timestep_spacing="leading"
        )
    pipe.save_pretrained(folder)
    if held_out is not None:
        (folder / "held_out.json").write_text(held_out)
    return folder


def png(seed: int, side: int = SIDE) -> bytes:
    """A smooth image of random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def exemplar_sets() -> list[ExemplarSet]:
    """Four object sets of one image and one style set of three."""
    objects = [
        ExemplarSet(f"object-{number}", "object", category, {f"object-{number}.0": png(number)})
        for number, category in enumerate(["fruit", "animal", "fruit", "animal"])
    ]
    style = {f"style-0.{position}": png(10 + position) for position in range(3)}
    return [*objects, ExemplarSet("style-0", "style", "art", style)]


def write_exemplars(path: Path, sets: Sequence[ExemplarSet]) -> Path:
    """The sets as the table `exemplars`."""
    rows = [
        {
            "exemplar_id": name,
            "exemplar_set": one.name,
            "image_id": name,
            "image": {"bytes": image, "path": None},
            "caption": f"{one.category} of {name}",
            "kind": one.kind,
            "category": one.category,
            "subject": None,
            "style": None,
            "split": "test",
            "seen": True,
        }
        for one in sets
        for name, image in one.images.items()
    ]
    tables.write(path, "exemplars", rows)
    return path


def write_prior(path: Path, classes: Sequence[tuple[str, str]], count: int = 3) -> Path:
    """A table `prior` of made-up images."""
    rows = [
        {
            "kind": kind,
            "category": category,
            "prior_index": number,
            "prompt": CAPTIONS[number % len(CAPTIONS)],
            "seed": number,
            "image": {"bytes": png(100 + number), "path": None},
        }
        for kind, category in classes
        for number in range(count)
    ]
    tables.write(path, "prior", rows)
    return path


def prompt_rows(sets: Sequence[ExemplarSet]) -> list[dict[str, Any]]:
    """Two prompts a set."""
    texts = {
        "object": [("a {token} {noun} in the snow", 2), ("a charcoal drawing of a {token} {noun}", 5)],
        "style": [("a picture of a fruit in the style of {token} art", 0), ("{token} art", 1)],
    }
    return [
        {
            "exemplar_set": one.name,
            "prompt_kind": "scene",
            "prompt_index": index,
            "prompt": text.format(token="<new1>", noun=one.noun),
            "control_prompt": " ".join(text.format(token="", noun=one.noun).split()),
        }
        for one in sets
        for text, index in texts[one.kind]
    ]
