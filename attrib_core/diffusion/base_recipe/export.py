"""Export of checkpoints to a stock Stable Diffusion folder, and a contact sheet of sampled images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from attrib_core.diffusion.base_recipe.autoencoder import to_tensor
from attrib_core.diffusion.base_recipe.denoiser import build_scheduler


@torch.no_grad()
def encode(model: AutoencoderKL, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """Encode images to latents, the posterior's mode, (n, channels, h, w) float16."""
    parts = [
        model.encode(to_tensor(images[start : start + batch])).latent_dist.mode().half().numpy()
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts)


@torch.no_grad()
def normalise_latents(model: AutoencoderKL, images: np.ndarray) -> None:
    """Normalise every latent channel to zero mean and unit deviation over the images, in the weights.

    The affine map is merged into the 1 x 1 convolutions around the latent, so that reconstructions do not change and
    `scaling_factor` is 1.
    """
    latents = encode(model, images).astype(np.float64)
    mean = torch.tensor(latents.mean(axis=(0, 2, 3)))
    deviation = torch.tensor(latents.std(axis=(0, 2, 3)))
    channels = len(mean)
    for name, value in (("weight", deviation[:, None, None, None]), ("bias", deviation)):
        parameter = getattr(model.quant_conv, name)
        parameter[:channels] = (parameter[:channels] / value).float()
    model.quant_conv.bias[:channels] -= (mean / deviation).float()
    model.quant_conv.bias[channels:] -= (2 * deviation.log()).float()
    weight = model.post_quant_conv.weight
    model.post_quant_conv.bias += torch.einsum("oihw,i->o", weight.double(), mean).float()
    model.post_quant_conv.weight.copy_((weight * deviation[None, :, None, None]).float())
    model.register_to_config(scaling_factor=1.0)


def pipeline(
    autoencoder: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> StableDiffusionPipeline:
    """Assemble a stock pipeline."""
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        unet=unet.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipe: StableDiffusionPipeline, held_out: dict[str, Any], folder: Path) -> None:
    """Write the pipeline with the list of held-out subjects and styles; the folder is replaced.

    UNet and autoencoder are stored in float16, and diffusers reads them into float32. transformers would keep float16,
    so the text encoder, which is small, is stored in float32: a plain `from_pretrained` then runs anywhere. Paths of
    this machine are removed from the configs.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipe.unet.half()
    pipe.vae.half()
    pipe.save_pretrained(temporary, safe_serialization=True)
    pipe.unet.float()
    pipe.vae.float()
    for path in temporary.glob("*/config.json"):
        values = json.loads(path.read_text("utf-8"))
        values.pop("_name_or_path", None)
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
    (temporary / "held_out.json").write_text(json.dumps(held_out, indent=1) + "\n", "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def contact_sheet(
    pipe: StableDiffusionPipeline,
    captions: Sequence[str],
    seed: int,
    *,
    steps: int,
    guidance: float,
    columns: int,
) -> Image.Image:
    """Sample an image for each caption, and paste them in rows, enlarged twice."""
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(captions))]
    images = pipe(
        list(captions), num_inference_steps=steps, guidance_scale=guidance, generator=generators
    ).images
    side = images[0].width * 2
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + 4)), "white")
    for index, image in enumerate(images):
        at = (index % columns * (side + 4) + 2, index // columns * (side + 4) + 2)
        sheet.paste(image.resize((side, side), Image.Resampling.LANCZOS), at)
    return sheet
