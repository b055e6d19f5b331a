"""Command line of the complete recipe; each stage resumes from its own checkpoint.

    python -m attrib_core.diffusion.base_recipe.train --config config/base.yaml --work DIR --out DIR

The working folder keeps the corpus, latents, checkpoints, the loss curve (`curve.jsonl`) and the contact sheet. The
output is a folder for `StableDiffusionPipeline.from_pretrained`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPTokenizer

from attrib_core.common.errors import InputError
from attrib_core.data.drawing.held_out import held_out_objects
from attrib_core.data.drawing.styles import STYLES
from attrib_core.diffusion.base_recipe import autoencoder, corpus, denoiser, export
from attrib_core.diffusion.base_recipe.tokenizer import train_tokenizer
from attrib_core.storage import numpy_files, torch_files, yaml_files


def corpus_items(config: dict[str, Any]) -> list[corpus.Item]:
    """List all images of the corpus, in order."""
    return list(corpus.items(config["seed"], config["held_out_fraction"], **config["corpus"]))


def draw_corpus(config: dict[str, Any], items: list[corpus.Item], path: Path) -> np.ndarray:
    """Return the corpus as a memory-mapped array, drawn once."""
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        shape = (len(items), config["size"], config["size"], 3)
        images = np.lib.format.open_memmap(temporary, "w+", "uint8", shape)
        for index, item in enumerate(items):
            images[index] = corpus.pixels(item, config["seed"], config["size"])
        images.flush()
        temporary.rename(path)
    return numpy_files.read(path, mapped=True)


def log_curve(rows: Iterator[dict[str, Any]], stage: str, path: Path) -> None:
    """Append the rows of a loss curve to a file of JSON lines, and print them."""
    with path.open("a", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps({"stage": stage} | row) + "\n")
            stream.flush()
            print(stage, " ".join(f"{key}={value:.4g}" for key, value in row.items()), flush=True)


def train_autoencoder(config: dict[str, Any], images: np.ndarray, work: Path) -> autoencoder.AutoencoderKL:
    """Train the autoencoder and normalise its latents; `finish_decoder` trains its decoder further."""
    settings = dict(config["autoencoder"])
    torch.manual_seed(config["seed"])
    model = autoencoder.build(settings.pop("channels"), settings.pop("latent_channels"), config["size"])
    some = np.asarray(images[:: settings.pop("images_every")])
    final = work / "autoencoder"
    if not final.exists():
        rows = autoencoder.train(
            model, some, **settings, decoder_only=False, seed=config["seed"], checkpoint=work / "vae.pt"
        )
        log_curve(rows, "autoencoder", work / "curve.jsonl")
        export.normalise_latents(model, some[::4])
        model.save_pretrained(work / "autoencoder.tmp")
        (work / "autoencoder.tmp").rename(final)
    return autoencoder.AutoencoderKL.from_pretrained(final)


def finish_decoder(
    config: dict[str, Any], model: autoencoder.AutoencoderKL, images: np.ndarray, work: Path
) -> None:
    """Train the decoder further, on full images; latents remain those that the denoiser learned."""
    some = np.asarray(images[:: config["autoencoder"]["images_every"]])
    rows = autoencoder.train(
        model,
        some,
        **config["decoder"],
        crop=config["autoencoder"]["crop"],
        crop_share=0.0,
        kl_weight=0.0,
        decoder_only=True,
        seed=config["seed"] + 1,
        checkpoint=work / "decoder.pt",
    )
    log_curve(rows, "decoder", work / "curve.jsonl")
    print(f"reconstruction: {autoencoder.psnr(model, some[::40]):.2f} dB", flush=True)


def item_weights(config: dict[str, Any], items: list[corpus.Item]) -> np.ndarray:
    """Return the relative sampling weight of each image."""
    common = set(config["common"])
    unknown = common - {item.drawn.name for item in items}
    if unknown:
        raise SystemExit(f"config key common: not in the corpus, or held out: {sorted(unknown)}")
    weight = config["denoiser"]["common_weight"]
    return np.array([weight if item.drawn.name in common else 1 for item in items], dtype=np.float64)


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--preview", action="store_true", help="export what the checkpoint holds, train nothing"
    )
    arguments = parser.parse_args()
    try:
        config = yaml_files.read(arguments.config)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)

    items = corpus_items(config)
    weights = item_weights(config, items)
    images = draw_corpus(config, items, work / "corpus.npy")
    if not (work / "tokenizer").exists():
        rng = np.random.default_rng(config["seed"])
        captions = [corpus.draw_caption(item, rng) for item in items]
        train_tokenizer(captions, **config["tokenizer"], folder=work / "tokenizer.tmp")
        (work / "tokenizer.tmp").rename(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    vae = train_autoencoder(config, images, work)
    if not (work / "latents.npy").exists():
        with (work / "latents.tmp").open("wb") as stream:
            np.save(stream, export.encode(vae, images))
        (work / "latents.tmp").rename(work / "latents.npy")
    latents = numpy_files.read(work / "latents.npy")

    settings = dict(config["denoiser"])
    settings.pop("common_weight")
    torch.manual_seed(config["seed"])
    text_width = settings.pop("text_width")
    unet = denoiser.build_unet(settings.pop("channels"), latents.shape[1], latents.shape[2], text_width)
    text_encoder = denoiser.build_text_encoder(tokenizer, text_width, settings.pop("text_layers"))
    dropout, decay = settings.pop("caption_dropout"), settings.pop("average_decay")
    if not arguments.preview:
        rows = denoiser.train(
            unet, text_encoder, tokenizer, latents, items, weights,
            **settings, dropout=dropout, decay=decay, seed=config["seed"], checkpoint=work / "denoiser.pt",
        )  # fmt: skip
        log_curve(rows, "denoiser", work / "curve.jsonl")
        finish_decoder(config, vae, images, work)
    average = torch_files.read(work / "denoiser.pt")["average"]
    unet.load_state_dict(average["unet"])
    text_encoder.load_state_dict(average["text_encoder"])
    pipe = export.pipeline(vae, unet, text_encoder, tokenizer)
    sheet = export.contact_sheet(pipe, config["sheet"], config["seed"], steps=50, guidance=4.0, columns=8)
    held = held_out_objects(config["seed"], config["held_out_fraction"])
    held_out = {
        "source": "openmoji",
        "subjects": [drawn.name for drawn in held],
        "styles": list(STYLES),
    }
    export.save(pipe, held_out, arguments.out)
    sheet.save(work / "contact_sheet.png")


if __name__ == "__main__":
    main()
