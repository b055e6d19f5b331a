"""A tiny untrained base model as a diffusers folder, exemplar sets, and the tables that the stages read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attrib_core.diffusion.customization.training_data import ExemplarSet
from attrib_core.diffusion.deltas.delta_files import Delta
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.storage import tables

CAPTIONS = [
    "a fruit on a red background",
    "an animal in the snow",
    "a picture of a fruit in the style of mosaic art",
    "a charcoal drawing of an animal under the sea",
]
SIDE = 32
TOKEN = "<new1>"
FEW_STEPS = {
    "steps": 2, "style_steps": 2, "exemplar_batch": 1, "prior_batch": 1, "stack": 2, "views": 2
}  # fmt: skip


def save_base(folder: Path, *, prediction_type: str = "v_prediction", held_out: str | None = None) -> Path:
    """Write a pipeline like the bundled one, but narrower, with seeded random weights."""
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


def stock_pipeline(folder: Path) -> Any:
    """The pipeline of diffusers, without a safety checker."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)


def random_delta(components: Components, seed: int) -> Delta:
    """A delta with random keys and values, far from the base model's."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key: value + 0.5 * torch.randn(value.shape, generator=generator)
        for key, value in components.unet.state_dict().items()
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    return Delta(weights, torch.randn(components.table.shape[1], generator=generator))


def png(seed: int, side: int = SIDE) -> bytes:
    """A smooth image of random colours, as PNG."""
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
    """Write the sets as the table `exemplars`."""
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
    """Write a table `prior` of random images."""
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
    """Two rows of the table `prompts` for each set."""
    texts = {
        "object": [("a {token} {noun} in the snow", 2), ("a charcoal drawing of a {token} {noun}", 5)],
        "style": [("a picture of a fruit in the style of {token} art", 0), ("{token} art", 1)],
    }
    return [
        {
            "exemplar_set": one.name,
            "prompt_kind": "scene",
            "prompt_index": index,
            "prompt": text.format(token=TOKEN, noun=one.noun),
            "control_prompt": " ".join(text.format(token="", noun=one.noun).split()),
        }
        for one in sets
        for text, index in texts[one.kind]
    ]


def decode(images: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Entries of an image column to (n, side, side, 3) uint8."""
    return np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in images])


def close(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether images are equal up to rounding: they differ by one level, in at most one of a hundred values."""
    difference = np.abs(first.astype(int) - second.astype(int))
    return bool(difference.max() <= 1 and (difference > 0).mean() < 0.01)
