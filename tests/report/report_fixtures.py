"""A small simulated run with every file that the report reads.

Every image has a latent vector (object, category, style, background), encoders weight its parts differently, and
ranks, candidates and metrics follow from the cosine similarities. So the tables agree with each other, without a
trained model.

As a script it writes a larger run: `python -m tests.report.report_fixtures FOLDER`.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from attrib_core.common import hashing
from attrib_core.data.drawing import backgrounds, render
from attrib_core.data.drawing.styles import STYLES
from attrib_core.diffusion.synthesis import report_sample
from attrib_core.storage import tables
from tests.report.results_fixtures import write_results
from tests.report.world_fixtures import Thing, World, build

SAMPLES = 3  # synthesized images of a set that the report shows


@functools.cache
def png(thing: Thing, size: int = 64, *, blurred: float = 0.0) -> bytes:
    """Draw a thing as PNG; blurred and noisy it resembles an image of a small model."""
    rng = hashing.generator("report fixture", "pixels", thing.name)
    pixels = render.image(thing.drawn.codepoint, thing.background, size, rng, thing.treatment)
    image = Image.fromarray(pixels)
    if blurred:
        rough = rng.normal(0, 14, (size // 4, size // 4, 3)).repeat(4, 0).repeat(4, 1)
        soft = np.asarray(image.filter(ImageFilter.GaussianBlur(blurred)), dtype=float)
        image = Image.fromarray(np.clip(soft + rough, 0, 255).astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_run(
    run: Path,
    *,
    pool: int = 80,
    object_sets: int = 10,
    style_sets: int = 7,
    prompts_each: int = 2,
    samples_each: int = 2,
    encoders: Sequence[str] = ("pixel", "efficientnet"),
) -> World:
    """Write all files of a simulated run in the folder `run`, in two parts each, and return its world."""
    world = build(
        pool=pool, object_sets=object_sets, style_sets=style_sets, prompts_each=prompts_each,
        samples_each=samples_each,
    )  # fmt: skip
    _write_pool(run, world)
    _write_exemplars(run, world)
    _write_models(run, world)
    write_results(run, world, encoders)
    return world


def inputs_of(run: Path) -> dict[str, Any]:
    """Return the named inputs of the rule `report` for a run on disk."""
    several = dict(
        pool="pool/part-*.parquet", rejects="pool/rejects-*.parquet", models="models/*.parquet",
        queries="synthesized/queries-*.parquet", sample="synthesized/sample-*.parquet",
        curves="mappers/*/*.curve.parquet", choices="mappers/*/*.choice.json",
        indices="indices/*/*.json", ranks="ranks/*/*.parquet", candidates="candidates/*/*.parquet",
        calibration="calibration/*/*/calibration.parquet", reliability="calibration/*/*/reliability.parquet",
        soft_scores="calibration/*/*/soft_scores.parquet",
    )  # fmt: skip
    single = dict(exemplars="exemplars.parquet", excluded="excluded.parquet", base_model="base_model.json")
    single |= dict(metrics="metrics.parquet", comparisons="comparisons.parquet")
    single |= dict(strata="strata.parquet", matched="matched.parquet")
    found: dict[str, Any] = {name: sorted(map(str, run.glob(pattern))) for name, pattern in several.items()}
    return found | {name: str(run / path) for name, path in single.items()}


def jobs_of(run: Path) -> list[str]:
    """Return the names of the jobs of a run on disk, from its benchmark files."""
    folder = run / "benchmarks"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.tsv"))


def _credit() -> dict[str, str]:
    return dict(licence="CC-BY-SA-4.0", attribution="OpenMoji, https://openmoji.org")


def _caption(thing: Any) -> str:
    return render.caption(thing.drawn.name, thing.background, thing.treatment)


def _write_pool(run: Path, world: World) -> None:
    own = [exemplar["thing"] for exemplar in world.exemplars]
    named = [(thing.name, thing) for thing in world.pool] + [(f"row-{thing.name}", thing) for thing in own]
    rows = [
        dict(
            image_id=name, image=dict(bytes=png(thing), path=f"{name}.png"),
            caption=_caption(thing),
            subject=thing.drawn.name, category=thing.drawn.category, style=thing.treatment,
            width=64, height=64, perceptual_hash=hashing.seed(thing.name), **_credit(),
        )
        for name, thing in named
    ]  # fmt: skip
    half = len(rows) // 2
    tables.write(run / "pool/part-0000.parquet", "pool", rows[:half])
    tables.write(run / "pool/part-0001.parquet", "pool", rows[half:])
    rejects = [dict(image_id=f"reject-{i}", reason=("too small", "unreadable")[i % 3 == 0]) for i in range(7)]
    tables.write(run / "pool/rejects-0000.parquet", "rejects", rejects)
    tables.write(run / "pool/rejects-0001.parquet", "rejects", [])
    excluded = [
        dict(image_id=f"row-{thing.name}", reason="exemplar", exemplar_id=thing.name) for thing in own
    ]
    excluded += [
        dict(image_id=world.pool[i].name, reason=reason, exemplar_id=own[i].name)
        for i, reason in enumerate(("same_subject", "same_subject", "near_duplicate"))
    ]
    tables.write(run / "excluded.parquet", "excluded", excluded)


def _write_exemplars(run: Path, world: World) -> None:
    rows = []
    for exemplar in world.exemplars:
        entry, thing = world.sets[exemplar["set"]], exemplar["thing"]
        rows.append(
            dict(
                exemplar_id=thing.name, exemplar_set=entry["name"], image_id=f"row-{thing.name}",
                image=dict(bytes=png(thing), path=f"{thing.name}.png"), caption=_caption(thing), kind=entry["kind"],
                category=entry["category"], subject=thing.drawn.name, style=entry["style"],
                split=entry["split"], seen=entry["seen"],
            )
        )  # fmt: skip
    tables.write(run / "exemplars.parquet", "exemplars", rows)
    prompts = {}
    for query in world.queries:
        words, plain = _prompts(world, query)
        key = (world.sets[query["set"]]["name"], query["prompt_kind"], query["prompt"])
        prompts[key] = dict(prompt=words, control_prompt=plain)
    names = ("exemplar_set", "prompt_kind", "prompt_index")
    tables.write(
        run / "prompts.parquet",
        "prompts",
        [dict(zip(names, key, strict=True)) | row for key, row in prompts.items()],
    )


def write_images(run: Path, part: int, rows: list[dict[str, Any]]) -> None:
    """Write a part of synthesized images, its rows without images, and a sample."""
    folder, images = run / "synthesized", run / f"synthesized/part-{part:04d}.parquet"
    tables.write(images, "synthesized", rows)
    queries = tables.read(images, "synthesized", tables.schema("queries").names)
    tables.write(folder / f"queries-{part:04d}.parquet", "queries", queries)
    with tables.writer(folder / f"sample-{part:04d}.parquet", tables.schema("synthesized")) as sink:
        for table in report_sample.sample_tables(images, samples=SAMPLES, seed=3):
            sink.write(table)


def _prompts(world: World, query: dict[str, Any]) -> tuple[str, str]:
    entry, thing = world.sets[query["set"]], query["thing"]
    if entry["style"]:
        words = f"a picture of {render.with_article(thing.drawn.category)}"
        return f"{words} in the style of <new1> art", words
    shown = f"{thing.treatment} of " if thing.treatment else ""
    place = backgrounds.phrase(thing.background)
    return (
        f"{shown}<new1> {entry['category']} {place}".strip(),
        f"{shown}{entry['category']} {place}".strip(),
    )


def _write_models(run: Path, world: World) -> None:
    models = [
        dict(
            model_key=hashing.content_key(entry["name"]), exemplar_set=entry["name"], method="custom_diffusion",
            base_model="0123456789abcdef", modifier_token="<new1>", delta_path="deltas/x.safetensors",
            token_path="deltas/x.token.safetensors", checksum="0" * 64, steps=120,
            loss=0.2 + 0.01 * (number % 7), seconds=4.9, peak_memory=1_240_000_000, threads=1,
            device="cpu", device_name="AMD EPYC",
        )
        for number, entry in enumerate(world.sets)
    ]  # fmt: skip
    synthesized = [
        dict(
            query_id=query["name"], exemplar_set=world.sets[query["set"]]["name"],
            model_key=hashing.content_key(query["set"]), condition=query["condition"],
            prompt_kind=query["prompt_kind"], prompt_index=query["prompt"], sample_index=query["sample"],
            prompt=_prompts(world, query)[query["condition"] == "control"],
            seed=hashing.seed(query["set"], query["prompt_kind"], query["prompt"], query["sample"]),
            image=dict(bytes=png(query["thing"], blurred=1.1), path=None), image_format="png",
        )
        for query in world.queries
    ]  # fmt: skip
    half = len(world.sets) // 2
    cut = next(i for i, query in enumerate(world.queries) if query["set"] == half)
    parts = [(models[:half], synthesized[:cut]), (models[half:], synthesized[cut:])]
    for part, (rows, images) in enumerate(parts):
        tables.write(run / f"models/part-{part:04d}.parquet", "models", rows)
        write_images(run, part, images)
    held = dict(subjects=["apple"], styles=sorted(STYLES))
    described = dict(path="bundled", fingerprint="0123456789abcdef", resolution=64)
    tables.write_json(
        run / "base_model.json", described | dict(prediction_type="v_prediction", held_out=held)
    )


if __name__ == "__main__":
    write_run(Path(sys.argv[1]), pool=900, object_sets=36, style_sets=16, prompts_each=3)
