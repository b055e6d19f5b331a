"""Estimates of a run, checked by hand: numbers, jobs, shapes, bytes."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from attrib_core.common import families
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, load_config_without_source, plain
from attrib_core.config.planning import base_model_facts, counts, expected_jobs, safetensors_headers, sizes
from attrib_core.config.planning.rates import Rate, Rates
from attrib_core.diffusion.base_models import bundled
from attrib_core.diffusion.pipeline.unet_weights import UNetWeights
from attrib_core.features.embedding import encoder_protocol
from attrib_core.storage import tables, yaml_files
from tests.config.planning_fixtures import stable_diffusion
from tests.workflow_fixtures import TINY, snakemake

ROOT = Path(__file__).parents[2]


def config_values(path: Path = ROOT / "config.yaml", **changes: Any) -> dict[str, Any]:
    return plain(load_config_without_source({**yaml_files.read(path), **changes}))


def test_numbers_of_the_demo() -> None:
    found = counts.count(config_values())
    assert found.models == 64 == 48 + 16
    assert found.training_steps == 48 * 160 + 16 * 300 == 12480
    assert found.step_images == 3 + 1
    assert (found.customized, found.control) == (64 * 2 * 4 * 2, 64 * 2 * 4) == (1024, 512)
    assert found.exemplars == (48 + 16 * 4, 48 + 16 * 8)
    assert found.prior == (2 * 16, (48 + 1) * 16)
    assert found.embedded == (2992 + 1536 + 112, 2992 + 1536 + 176)
    assert (found.pool_parts, found.set_parts) == (2, 4)
    assert found.mappers == ("untuned", "linear-object", "linear-style")


def test_numbers_of_the_published_run_without_its_data() -> None:
    with pytest.raises(InputError, match="data/pool"):
        load_config(ROOT / "config" / "paper.yaml")
    found = counts.count(config_values(ROOT / "config" / "paper.yaml"))
    assert (found.models, found.training_steps) == (7435, 7435 * 250)
    assert (found.customized, found.control) == (7435 * 2 * 10 * 4, 7435 * 2 * 10)
    assert found.step_images == 8


def test_numbers_that_depend_on_options() -> None:
    no_prior = {"family": "custom_diffusion", "prior_batch": 0, "accumulation": 5}
    found = counts.count(config_values(customizer=no_prior))
    assert found.prior == (0, 0) and found.step_images == 5 * 3
    splits = {"train": 0.7, "validation": 0.3, "test": 0.0}
    exemplars = {"object_sets": 0, "style_sets": 3, "style_set_size": [2, 2], "splits": splits}
    found = counts.count(config_values(exemplars=exemplars, mapper={"trained_on": ["style"]}))
    assert found.exemplars == (6, 6) and found.prior == (16, 16)
    assert found.customized == 3 * 2 * 4 * 2


@pytest.mark.slow
def test_the_jobs_are_those_that_snakemake_plans(tmp_path: Path) -> None:
    """Rule, output, log and benchmark file of each job, for all rules of the workflow."""
    dry = snakemake(tmp_path, TINY, "--dry-run").stdout
    shown = re.findall(r"^rule (\w+):\n(?:    input: .*\n)?    output: (.*)$", dry, re.MULTILINE)
    rules = {path: rule for rule, paths in shown for path in paths.split(", ")}
    jobs = list(expected_jobs.jobs(counts.count(config_values(TINY))))
    for job in jobs:
        assert rules[f"results/tiny/{job.output}"] == job.rule
    assert {job.rule for job in jobs} == set(rules.values())
    for kind, ending in (("log", "log"), ("benchmark", "tsv")):
        shown_paths = re.findall(rf"^    {kind}: (\S+)", dry, re.MULTILINE)
        folder = f"{kind}s" if kind == "benchmark" else "logs"
        assert sorted(shown_paths) == sorted(f"results/tiny/{folder}/{job.name}.{ending}" for job in jobs)


def test_shapes_from_headers(tmp_path: Path) -> None:
    tensors = {"b": torch.zeros(3, 4), "a.weight": torch.zeros(7), "none": torch.zeros(2, 0)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    assert safetensors_headers.shapes(path) == {key: tuple(value.shape) for key, value in tensors.items()}
    assert safetensors_headers.parameters(safetensors_headers.shapes(path)) == 12 + 7
    assert safetensors_headers.unet_shapes(bundled.FOLDER) == UNetWeights(bundled.FOLDER).shapes


@pytest.mark.parametrize("count", [0, 1, 17])
def test_size_of_a_safetensors_file_from_shapes(tmp_path: Path, count: int) -> None:
    tensors = {f"layer.{number}.weight": torch.zeros(number + 1, 5) for number in range(count)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    assert safetensors_headers.file_bytes(shapes) == path.stat().st_size


@pytest.mark.parametrize(
    "content",
    [b"", b"short", struct.pack("<Q", 1 << 40), struct.pack("<Q", 4) + b"[{]}", struct.pack("<Q", 2) + b"[]"],
)
def test_other_files_than_safetensors_are_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no such file"):
        safetensors_headers.shapes(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match="x.safetensors: not readable as safetensors"):
        safetensors_headers.shapes(path)
    with pytest.raises(InputError, match="unet: no diffusion_pytorch_model"):
        safetensors_headers.unet_shapes(tmp_path)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("family", families.names("customizers"))
def test_bytes_of_a_delta(family: str, tokens: int, tmp_path: Path) -> None:
    """As `delta_files.write` writes them."""
    from attrib_core.diffusion.deltas import delta_files

    base = base_model_facts.read({"family": "bundled"})
    config = config_values(customizer={"family": family, "tokens": tokens})
    held = families.load("customizers", *families.split(config["customizer"])).delta_shapes(base.unet)
    row = torch.zeros(96) if tokens == 1 else torch.zeros(tokens, 96)
    delta_files.write(
        tmp_path,
        "x",
        delta_files.Delta({key: torch.zeros(shape) for key, shape in held.items()}, row),
        "<new1>",
    )
    assert sizes.delta_bytes(config, base) == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize("vectors", [1, 3])
def test_bytes_of_a_token_of_two_text_encoders(vectors: int) -> None:
    """Vectors are rows, even a single one, unlike for one text encoder."""
    from attrib_core.diffusion.deltas import token_file

    rows = torch.zeros(vectors, 768), torch.zeros(vectors, 1280)
    assert sizes.token_bytes([768, 1280], vectors) == len(token_file.to_bytes("<new1>", *rows))


def test_stable_diffusion_is_recognized_by_its_shapes(tmp_path: Path) -> None:
    base = base_model_facts.read({"family": "folder", "path": str(stable_diffusion(tmp_path))})
    assert (base.kind, base.resolution, base.widths) == (base_model_facts.STABLE_DIFFUSION, 512, [768])
    config = config_values()
    size = sizes.delta_bytes(config, base)
    assert size is not None and 0 < size - 4 * (19_169_280 + 768) < 8000  # and two headers
    assert base_model_facts.read({"family": "bundled"}).kind == base_model_facts.BUNDLED
    unet = tmp_path / "unet" / "config.json"
    unet.write_text(json.dumps({"sample_size": 32}))
    assert base_model_facts.read({"family": "folder", "path": str(tmp_path)}).kind is None
    found, reason = base_model_facts.try_read({"family": "folder", "path": "/nowhere"})
    assert found is None and reason.startswith("base_model: /nowhere/model_index.json: no such file")


def test_dimensions_are_known_without_loading_a_network() -> None:
    lite = {"family": "timm", "architecture": "tf_efficientnet_lite0", "weights": "efficientnet-lite0"}
    named = config_values()["encoders"] | {
        "whole": lite,
        "stages": lite | {"stages": [0, 4], "cells": 2, "deviation": True},
        "palette": {"family": "palette", "bins": 3},
    }
    for name, section in named.items():
        filled = families.complete("encoders", section, name)
        assert families.dim(filled, name) == encoder_protocol.load(section, name, device="cpu").dim, name
    own = lite | {"weights": "/somewhere.safetensors"}
    assert families.dim(families.complete("encoders", own, "x"), "x") is None
    mixed = {"family": "fusion", "parts": {"a": {"family": "palette"}, "b": own}}
    assert families.dim(families.complete("encoders", mixed, "x"), "x") is None


def test_bytes_by_stage_of_a_tiny_config() -> None:
    config = config_values(TINY)
    base, number = base_model_facts.read({"family": "bundled"}), counts.count(config_values(TINY))
    rates = Rates({}, {"pool": Rate(1000.0, "here"), "image": Rate(500.0, "here")})
    found, missing = sizes.estimate(config, number, base, rates, {"pixel": 192})
    assert missing == []
    assert found["pool"].bytes == (120_000, 120_000)
    assert found["prior"].bytes == (2 * 2 * 500, 2 * 5 * 500)
    assert found["customize"].bytes == (7 * 394_712, 7 * 394_712)
    assert found["synthesize"].bytes == (28 * 500, 28 * 500)
    assert found["sample"].bytes == (7 * 2 * 500,) * 2  # one image a set, and its control
    assert found["embed pixel"] == sizes.Size(
        ((120 + 28 + 10) * 768, (120 + 28 + 13) * 768), upper_bound=True
    )
    assert found["tune"].bytes == (2 * 2 * 4 * (192 * 192 + 192),) * 2
    assert found["index"] == sizes.Size((120 * 4 * 192 * 3,) * 2, upper_bound=True)
    measured = Rates({}, {"embed pixel": Rate(100.0, "here")})
    again, _ = sizes.estimate(config, number, base, measured, {"pixel": 192})
    assert again["embed pixel"] == sizes.Size((158 * 100, 161 * 100))
    rows = 2 * (4 * 2 + 3 * 2 * 3)  # samples and controls, prompts, exemplars of the largest sets
    assert found["rank"].bytes[0] == 3 * (28 * (4 * 10 + 16 * 64) + rows * sizes.RANK_NUMBERS)
    numbers = [field.type.bit_width for field in tables.schema("ranks") if field.type != "string"]
    assert sum(numbers) == 8 * sizes.RANK_NUMBERS


@pytest.mark.parametrize(
    ("mapper", "numbers"),
    [
        ({"head": "channel", "starts": ["identity"]}, (192, 192)),
        ({"head": "mlp", "hidden": 10, "starts": ["identity"]}, (10 * 193 + 192 * 11,) * 2),
        ({"head": "mlp", "hidden": 10, "shared": True}, (10 * 193 + 192 * 11, 10 * 193 + 192 * (11 + 192))),
    ],
)
def test_bytes_of_heads_by_kind(mapper: dict[str, Any], numbers: tuple[int, int]) -> None:
    config = config_values(TINY, mapper=mapper, exemplars={"object_sets": 4, "style_sets": 4})
    number = counts.count(config)
    kind = "mlp-shared" if mapper.get("shared") else mapper["head"]
    assert number.mappers == ("untuned", f"{kind}-object", f"{kind}-style")
    found, _ = sizes.estimate(config, number, None, Rates({}, {}), {"pixel": 192})
    assert found["tune"].bytes == tuple(2 * 2 * 4 * one for one in numbers)


def test_unknown_sizes_are_reported() -> None:
    config = config_values(TINY, index={"factory": "IVF16,SQ8"})
    found, missing = sizes.estimate(config, counts.count(config), None, Rates({}, {}), {"pixel": 192})
    assert set(found) == {"embed pixel", "tune", "rank"}
    reasons = "\n".join(missing)
    for words in ("bytes of the pool", "prior images", "synthesized images", "deltas", "'IVF16,SQ8'"):
        assert words in reasons
    found, missing = sizes.estimate(config, counts.count(config), None, Rates({}, {}), {"pixel": None})
    assert set(found) == {"rank"} and "pixel: the number of features" in "\n".join(missing)


def test_images_of_a_folder_are_measured(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"x" * 100 * (number + 1))
    source = {"family": "folder", "path": str(tmp_path), "licence": "CC0-1.0", "attribution": "me"}
    config = config_values(pool={"images": 2992, "source": source})
    assert sizes.image_bytes(config) == 250
    assert sizes.image_bytes(config_values()) is None
