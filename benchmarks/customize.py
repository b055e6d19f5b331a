"""Measure time and memory of customization: stacked sets, the frozen network only, the published way.

    OMP_NUM_THREADS=2 python benchmarks/customize.py --sets 1 8 24 --steps 160

Custom Diffusion of the bundled base model with the settings of the demo, on images of noise; one
thread unless OMP_NUM_THREADS is set. Each measurement runs in a separate process:

    stacked      all exemplar sets in one stack, with the trainer of the workflow
    frozen       forward and backward of the frozen network only, at the same batch, without training:
                 an upper bound for any trainer that passes these batches through this network
    published    one process and one full model per set, one after another: images pass the autoencoder and
                 all prompts the text encoder at each step, and the optimizer has the entire token table;
                 reimplemented from the description of the public trainers

Output: exemplar-steps per second without start-up (median of the repeats, after a first step) and with it
(from start to end of the process: imports, loading, preparation, writing deltas, one training), the ratios
to one stacked set and to the published way, the share of the frozen network's speed, and peak resident
memory. `--clock cpu` uses processor time of the processes, for machines with other work. `--enforce` exits
with status 1 if the limit is missed (3 times one set's speed at the largest number of sets). Nothing is
written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the workflow's jobs have it
os.environ |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from attrib_core.diffusion.base_models import bundled
from attrib_core.runtime import hardware
from benchmarks.clocks import CLOCKS, now, timed

TOKEN, CATEGORY = "<new1>", "bird"
TIMES = 3.0
METHODS = ("stacked", "frozen", "published")
PUBLISHED = Path(__file__).parent / "published_customize.py"
SEED = 0
PRIOR_IMAGES = 16
COLUMNS = ("steps/s", "with start-up", "times 1", "times publ.", "start-up too", "of frozen", "peak MB")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run all methods at all numbers of sets; prints a table and returns its rows."""
    options = _options(arguments)
    if options.method:
        print(json.dumps(OURS[options.method](Path(options.folder), options)))
        return []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = _measured(Path(folder), options)
    _show(rows, options)
    most = max((row for row in rows if row["method"] == "stacked"), key=lambda row: row["sets"])
    met = most["times_one"] >= TIMES
    words = f"{most['times_one']:.2f} times one set's speed at {most['sets']} sets, at least {TIMES:.0f}"
    print(f"{'met   ' if met else 'MISSED'} {words}")
    if options.enforce and not met:
        raise SystemExit(1)
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, nargs="+", default=[1, 8, 24], help="exemplar sets")
    parser.add_argument("--steps", type=int, default=160, help="optimizer steps of a training")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of which the median counts")
    parser.add_argument(
        "--published",
        type=int,
        default=24,
        help="processes of the published way at most; beyond, their mean is taken",
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="which time counts")
    parser.add_argument("--folder", help="where temporary folders are made")
    parser.add_argument("--enforce", action="store_true", help="status 1 where a limit is missed")
    parser.add_argument("--method", choices=OURS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _measured(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of sets and method, ratios included."""
    rows = []
    for sets in options.sets:
        for method in ("stacked", "frozen"):
            found = _child(method, folder, options, sets)
            own = {"train": found["seconds"], "whole": found["whole"], "peak_mb": found["peak"] / 1e6}
            rows.append({"sets": sets, "method": method} | own)
    started = min(max(options.sets), options.published)
    runs = [_child("published", folder, options, 1) for _ in range(started)]
    for sets in options.sets:
        counted = runs[: min(sets, started)]
        own = {
            "train": sets * statistics.mean(run["seconds"] for run in counted),
            "whole": sets * statistics.mean(run["whole"] for run in counted),
            "peak_mb": max(run["peak"] for run in counted) / 1e6,
        }
        rows.append({"sets": sets, "method": "published"} | own)
    for row in rows:
        row["speed"] = row["sets"] * options.steps / row["train"]
        row["speed_all"] = row["sets"] * options.steps / row["whole"]
    by_name = {(row["method"], row["sets"]): row for row in rows}
    for row in rows:
        same = {name: by_name[name, row["sets"]] for name in METHODS}
        row["times_one"] = row["speed"] / by_name[row["method"], min(options.sets)]["speed"]
        row["times_published"] = row["speed"] / same["published"]["speed"]
        row["times_published_all"] = row["speed_all"] / same["published"]["speed_all"]
        row["of_frozen"] = row["speed"] / same["frozen"]["speed"]
    return rows


def _child(method: str, folder: Path, options: argparse.Namespace, sets: int) -> dict[str, Any]:
    """Run a method in a separate process and return its measurements, with the total time of one training."""
    settings = [
        "--folder",
        folder,
        "--steps",
        options.steps,
        "--repeats",
        options.repeats,
        "--clock",
        options.clock,
    ]
    if method == "published":
        demo = _method(1)
        settings += ["--exemplars", demo.exemplar_batch, "--priors", demo.prior_batch, "--rate", demo.rate]
        command = [sys.executable, PUBLISHED, "--base", bundled.FOLDER, *settings]
    else:
        command = [sys.executable, __file__, "--method", method, "--sets", sets, *settings]
    began = now(options.clock, children=True)
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    whole = now(options.clock, children=True) - began
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    times = found["times"]
    seconds = statistics.median(times)
    return {"seconds": seconds, "whole": whole - sum(times) + seconds, "peak": found["peak"]}


def _show(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    threads, device = os.environ["OMP_NUM_THREADS"], hardware.device_name("cpu")
    print(f"bundled base, {options.steps} steps of {_method(1).exemplar_batch} exemplar and", end=" ")
    print(f"{_method(1).prior_batch} prior images a set; {device}, threads: {threads}, {options.clock} time")
    print(f"  {'sets':>4} {'method':10}" + "".join(f"{name:>14}" for name in COLUMNS))
    for row in rows:
        keys = ("speed", "speed_all", "times_one", "times_published", "times_published_all", "of_frozen")
        values = "".join(f"{row[key]:14.2f}" for key in keys) + f"{row['peak_mb']:14.0f}"
        if row["method"] == "frozen":  # start-up and its ratio would say nothing
            values = (
                f"{row['speed']:14.2f}{'':14}{row['times_one']:14.2f}{'':28}{1:14.2f}{row['peak_mb']:14.0f}"
            )
        print(f"  {row['sets']:4} {row['method']:10}{values}", flush=True)


def _image(name: str, number: int) -> np.ndarray:
    from attrib_core.common import hashing

    return hashing.generator("benchmark", name, number).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def _method(sets: int) -> Any:
    """Return the demo's method with a stack of `sets`."""
    from attrib_core.common import families

    return families.load("customizers", "custom_diffusion", {"stack": sets})


def _ready(options: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """Return method, network and encoded sets, ready for training."""
    import torch

    from attrib_core.data.images import to_png
    from attrib_core.diffusion.customization import train_stack, training_data

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    (sets,) = options.sets
    method = _method(sets)
    loaded = train_stack.load_network(bundled.load(), TOKEN, "cpu")
    rows = [
        {
            "kind": "object",
            "category": CATEGORY,
            "prompt": f"a {CATEGORY}",
            "image": {"bytes": to_png(_image("prior", number))},
        }
        for number in range(PRIOR_IMAGES)
    ]
    prior = training_data.encode_prior_images(rows, loaded, [("object", CATEGORY)])["object", CATEGORY]
    ready = []
    for number in range(sets):
        one = training_data.ExemplarSet(
            f"object-{number}", "object", CATEGORY, {"exemplar": to_png(_image("exemplar", number))}
        )
        prompts = training_data.training_prompts(one, {"object": method.object_prompt}, TOKEN)
        ready.append(
            training_data.encode_exemplar_set(one, loaded, method, prompts=prompts, prior=prior, seed=SEED)
        )
    return method, loaded, ready


def _stacked(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from attrib_core.diffusion.customization import training_loop
    from attrib_core.diffusion.deltas import delta_files

    method, loaded, ready = _ready(options)
    models: list[Any] = []

    def run(steps: int) -> None:
        models[:] = training_loop.train(ready, loaded, method, steps=steps, seed=SEED)

    times = timed(run, steps=options.steps, repeats=options.repeats, clock=options.clock)
    for number, model in enumerate(models):
        delta_files.write(folder / "deltas", f"model-{number}", model.delta, TOKEN)
    return {"times": times, "peak": hardware.peak_memory()}


def _frozen(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from attrib_core.diffusion.pipeline.components import encode_text

    method, loaded, ready = _ready(options)
    # gradients flow from the loss to the token embeddings, through all layers that training passes
    table = loaded.text_encoder.get_input_embeddings()
    table.register_forward_hook(lambda module, given, out: out.detach().requires_grad_())
    exemplars, priors = method.exemplar_batch, method.prior_batch
    latents = torch.cat(
        [torch.cat([one.views[:exemplars], one.prior.latents[:priors]]) for one in ready]
    ).contiguous(memory_format=torch.channels_last)
    timesteps = torch.linspace(1, 999, len(latents)).long()
    # the base model knows no modifier token: any other word costs the same
    ids = torch.cat([one.ids[:exemplars] for one in ready]).clamp(max=len(loaded.table) - 1)
    prior = torch.stack([one.prior.prompt_embeds.states[:priors] for one in ready])

    def run(steps: int) -> None:
        for _ in range(steps):
            states = encode_text(loaded, ids).states.unflatten(0, (len(ready), exemplars))
            context = torch.cat([states, prior], dim=1).flatten(0, 1)
            loaded.unet(latents, timesteps, context).sample.square().mean().backward()

    return {
        "times": timed(run, steps=options.steps, repeats=options.repeats, clock=options.clock),
        "peak": hardware.peak_memory(),
    }


OURS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "stacked": _stacked,
    "frozen": _frozen,
}


if __name__ == "__main__":
    main()
