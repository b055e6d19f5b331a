"""Time and memory of customization: stacked sets, the frozen network alone, the published way.

    OMP_NUM_THREADS=2 python benchmarks/customize.py --sets 1 8 24 --steps 160

Custom Diffusion of the bundled base model with the settings of the demo, on pictures of noise; one
thread unless OMP_NUM_THREADS says otherwise. Whatever runs, runs in a process of its own:

    stacked      so many exemplar sets in one stack, by the trainer of the workflow
    frozen       forward and backward of the frozen network alone at the same batch, nothing trained:
                 no trainer that runs these batches through this network can be faster
    published    a process and a full model a set, one after another: pictures pass the autoencoder and
                 all prompts the text encoder at each step, and the optimizer holds the whole token table;
                 written anew from the description of the public trainers

Printed are exemplar-steps a second without start-up (median of the repeats, after a first step) and
with it (from the start of the process to its end: imports, loading, preparing, writing deltas, one
training), how many times faster than one stacked set and than the published way, the share of the
frozen network's speed, and peak resident memory. With `--clock cpu` all of it is by processor time of
the processes: on a machine that others use too, wall times say how busy it was. `--enforce` makes a
missed limit (3 times one set's speed at the most sets) status 1. Nothing is written outside a temporary
folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the workflow's jobs have it
os.environ |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from attrib_core import machine
from attrib_core.base_models import bundled

TOKEN, CATEGORY = "<new1>", "bird"
TIMES = 3.0
SEED = 0
COLUMNS = ("steps/s", "with start-up", "times 1", "times publ.", "start-up too", "of frozen", "peak MB")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run all methods at all numbers of sets; prints a table and returns its rows."""
    options = _options(arguments)
    if options.method:
        print(json.dumps(METHODS[options.method](Path(options.folder), options)))
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
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="which time counts")
    parser.add_argument("--folder", help="where temporary folders are made")
    parser.add_argument("--enforce", action="store_true", help="status 1 where a limit is missed")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
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
    """What a method says of itself, run in a process of its own, and the wall time of one training with all else."""
    settings = [
        "--sets",
        sets,
        "--steps",
        options.steps,
        "--repeats",
        options.repeats,
        "--clock",
        options.clock,
    ]
    command = [sys.executable, __file__, "--folder", folder, "--method", method, *settings]
    began = _clock(options, resource.RUSAGE_CHILDREN)
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    whole = _clock(options, resource.RUSAGE_CHILDREN) - began
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    times = found["times"]
    seconds = statistics.median(times)
    return {"seconds": seconds, "whole": whole - sum(times) + seconds, "peak": found["peak"]}


def _clock(options: argparse.Namespace, who: int) -> float:
    """Seconds on the clock that counts; by processor time those of this process, or of its finished children."""
    if options.clock == "wall":
        return time.perf_counter()
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _show(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    threads, device = os.environ["OMP_NUM_THREADS"], machine.name("cpu")
    print(f"bundled base, {options.steps} steps of {_method(1).exemplar_batch} exemplar and", end=" ")
    print(
        f"{_method(1).prior_batch} prior pictures a set; {device}, threads: {threads}, {options.clock} time"
    )
    print(f"  {'sets':>4} {'method':10}" + "".join(f"{name:>14}" for name in COLUMNS))
    for row in rows:
        keys = ("speed", "speed_all", "times_one", "times_published", "times_published_all", "of_frozen")
        values = "".join(f"{row[key]:14.2f}" for key in keys) + f"{row['peak_mb']:14.0f}"
        if row["method"] == "frozen":  # start-up and its ratio would say nothing
            values = (
                f"{row['speed']:14.2f}{'':14}{row['times_one']:14.2f}{'':28}{1:14.2f}{row['peak_mb']:14.0f}"
            )
        print(f"  {row['sets']:4} {row['method']:10}{values}", flush=True)


def _timed(run: Callable[[int], None], options: argparse.Namespace) -> list[float]:
    """Seconds of each of the repeats of a training, after a first step that sets the libraries up."""
    run(1)
    times = []
    for _ in range(options.repeats):
        began = _clock(options, resource.RUSAGE_SELF)
        run(options.steps)
        times.append(_clock(options, resource.RUSAGE_SELF) - began)
    return times


def _picture(name: str, number: int) -> np.ndarray:
    from attrib_core import keys

    return keys.generator("benchmark", name, number).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def _method(sets: int) -> Any:
    """The demo's method, of so many sets a stack."""
    from attrib_core import families

    return families.load("customizers", "custom_diffusion", {"stack": sets})


def _ready(options: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """Method, network and as many sets as asked for, ready for training."""
    import torch

    from attrib_core.customization import concepts, stacks
    from attrib_core.pictures import png

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    (sets,) = options.sets
    method = _method(sets)
    loaded = stacks.network(bundled.load(), TOKEN, "cpu")
    rows = [
        {
            "kind": "object",
            "category": CATEGORY,
            "prompt": f"a {CATEGORY}",
            "image": {"bytes": png.encode(_picture("prior", number))},
        }
        for number in range(method.prior_images)
    ]
    prior = concepts.priors(rows, loaded, [("object", CATEGORY)])["object", CATEGORY]
    ready = []
    for number in range(sets):
        one = concepts.ExemplarSet(
            f"object-{number}", "object", CATEGORY, {"exemplar": png.encode(_picture("exemplar", number))}
        )
        prompts = concepts.training_prompts(one, {"object": method.object_prompt}, TOKEN)
        views = {"views": method.views, "scale_jitter": method.scale_jitter, "shift": method.shift}
        ready.append(concepts.concept(one, loaded, prompts=prompts, prior=prior, seed=SEED, **views))
    return method, loaded, ready


def _stacked(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from attrib_core.customization import training
    from attrib_core.diffusion import deltas

    method, loaded, ready = _ready(options)
    models: list[Any] = []

    def run(steps: int) -> None:
        models[:] = training.train(ready, loaded, method, steps=steps, seed=SEED)

    times = _timed(run, options)
    for number, model in enumerate(models):
        deltas.write(folder / "deltas", f"model-{number}", model.delta, TOKEN)
    return {"times": times, "peak": machine.peak_memory()}


def _frozen(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from attrib_core.diffusion.components import encode_text

    method, loaded, ready = _ready(options)
    # gradients flow from the loss to the words, past all layers that a trained one would hang on
    table = loaded.text_encoder.get_input_embeddings()
    table.register_forward_hook(lambda module, given, out: out.detach().requires_grad_())
    exemplars, priors = method.exemplar_batch, method.prior_batch
    latents = torch.cat(
        [torch.cat([one.views[:exemplars], one.prior.latents[:priors]]) for one in ready]
    ).contiguous(memory_format=torch.channels_last)
    timesteps = torch.linspace(1, 999, len(latents)).long()
    # the base model knows no modifier token: any other word costs the same
    ids = torch.cat([one.ids[:exemplars] for one in ready]).clamp(max=len(loaded.table) - 1)
    prior = torch.stack([one.prior.states[:priors] for one in ready])

    def run(steps: int) -> None:
        for _ in range(steps):
            states = encode_text(loaded, ids).unflatten(0, (len(ready), exemplars))
            context = torch.cat([states, prior], dim=1).flatten(0, 1)
            loaded.unet(latents, timesteps, context).sample.square().mean().backward()

    return {"times": _timed(run, options), "peak": machine.peak_memory()}


def _published(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The protocol of the public trainers (Kumari et al., CVPR 2023, and diffusers' example), without data loaders."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from safetensors.torch import save_file
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    method = _method(1)
    pipe = StableDiffusionPipeline.from_pretrained(bundled.FOLDER, safety_checker=None)
    pipe.tokenizer.add_tokens([TOKEN])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    token = pipe.tokenizer.convert_tokens_to_ids(TOKEN)
    table = pipe.text_encoder.get_input_embeddings().weight
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    trained = {}
    for name, layer in pipe.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.register_forward_hook(lambda _, __, out: torch.cat([out[:, :1].detach(), out[:, 1:]], 1))
            trained[f"{name}.weight"] = layer.weight.requires_grad_()
    optimizer = torch.optim.AdamW([*trained.values(), table.requires_grad_()], method.learning_rate)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pictures = np.stack(
        [_picture("exemplar", 0)] * method.exemplar_batch
        + [_picture("prior", number) for number in range(method.prior_batch)]
    )
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    prompts = [f"a {TOKEN} {CATEGORY}"] * method.exemplar_batch + [f"a {CATEGORY}"] * method.prior_batch
    length = pipe.tokenizer.model_max_length
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt").input_ids

    def run(steps: int) -> None:
        for _ in range(steps):
            with torch.no_grad():
                latents = pipe.vae.encode(pixels).latent_dist.sample() * pipe.vae.config.scaling_factor
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
            noisy = scheduler.add_noise(latents, noise, timesteps)
            target = scheduler.get_velocity(latents, noise, timesteps)
            states = pipe.text_encoder(ids).last_hidden_state
            errors = (pipe.unet(noisy, timesteps, states).sample - target).square()
            own, prior = errors[: method.exemplar_batch], errors[method.exemplar_batch :]
            (own.mean() + method.prior_weight * prior.mean()).backward()
            table.grad[torch.arange(len(table)) != token] = 0
            torch.nn.utils.clip_grad_norm_([*trained.values(), table], method.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()

    times = _timed(run, options)
    save_file({name: weight.detach() for name, weight in trained.items()}, folder / "delta.safetensors")
    save_file({TOKEN: table[token].detach().clone()}, folder / "token.safetensors")
    return {"times": times, "peak": machine.peak_memory()}


METHODS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "stacked": _stacked,
    "frozen": _frozen,
    "published": _published,
}


if __name__ == "__main__":
    main()
