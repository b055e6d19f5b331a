"""Measure the cost of the store and of job records, as a share of a stage's time.

    python benchmarks/store.py --sets 16 --steps 160

A part of exemplar sets goes through customization, synthesis and embedding as in jobs of the workflow, with the
bundled base model and the settings of the demo, on images of noise; one thread unless OMP_NUM_THREADS is set. The
store's time is all that would not be needed without it: lookups with their checksums, writing and reading pieces
with fsync, records, locks, references of a run, keys of images, and the record of the job. Files of deltas would be
written in any case and are included all the same, and so is reading images before embedding, which happens while
their keys are computed; `store_embedding.py` compares embedding with the part without a store.

Output: seconds of a stage without the start of its process, seconds in the store, and their share; then the same for
a second call that finds everything: the time of a rerun that computes nothing. `--clock cpu` uses processor time,
which other work on the machine affects less and which does not include the disk. `--folder` is where to write, on the
disk to be measured; everything is removed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the workflow's jobs have it
os.environ |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from attrib_core.common import families
from attrib_core.config.load import load_config, plain
from attrib_core.data.images import to_png
from attrib_core.diffusion.base_models import bundled
from attrib_core.diffusion.customization import customize as customization
from attrib_core.diffusion.customization import train_stack
from attrib_core.diffusion.customization.training_data import ExemplarSet
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline import description
from attrib_core.diffusion.synthesis import synthesize as synthesis
from attrib_core.features.embedding import embed as embedding_part
from attrib_core.features.embedding import embedding_tables, encoder_protocol
from attrib_core.runtime import job_records
from attrib_core.storage import atomic, tables
from attrib_core.storage.store import claims, layout, make_missing, parts, pieces, references
from benchmarks.clocks import CLOCKS, now

TOKEN, CATEGORY, SEED = "<new1>", "bird", 0
STORE: list[tuple[ModuleType | type, str]] = [
    (pieces, "write"),
    (pieces, "finished"),
    (pieces, "read"),
    (pieces, "consolidate"),
    (pieces, "drop"),
    (references, "note"),
    (train_stack, "finished"),
    (delta_files, "write"),
    (atomic, "write_bytes"),
    (embedding_part, "find_pieces"),
    (make_missing.StoredResults, "is_finished"),
    (claims.Claims, "take"),
    (claims.Claims, "release"),
    (job_records, "save"),
]


class Watch:
    """Seconds within some functions; one that calls another counts once."""

    def __init__(self, clock: str) -> None:
        self.clock, self.seconds, self._inside = clock, 0.0, False

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            if self._inside:
                return work(*given, **named)
            self._inside, began = True, now(self.clock)
            try:
                return work(*given, **named)
            finally:
                self.seconds += now(self.clock) - began
                self._inside = False

        return timed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the functions of STORE are timed."""
        before = [(module, name, getattr(module, name)) for module, name in STORE]
        for module, name, work in before:
            setattr(module, name, self.around(work))
        try:
            yield
        finally:
            for module, name, work in before:
                setattr(module, name, work)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run a part through all stages twice; prints a table and returns its rows."""
    options = _options(arguments)
    config = plain(load_config({}))
    found = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run = Path(name) / "results" / "run"
        for turn in ("made", "there already"):
            for stage, work in _stages(run, config, options):
                watch = Watch(options.clock)
                with watch.watching():
                    began = now(options.clock)
                    work()
                    seconds = now(options.clock) - began
                found.append({"turn": turn, "stage": stage, "seconds": seconds, "store": watch.seconds})
    print(f"{options.sets} sets, {options.steps} steps, clock: {options.clock}")
    print("| part | stage | seconds | of these in the store | share |\n| --- | --- | --- | --- | --- |")
    for row in found:
        share = 100 * row["store"] / row["seconds"]
        print(
            f"| {row['turn']} | {row['stage']} | {row['seconds']:.2f} | {row['store']:.3f} | {share:.1f} % |"
        )
    return found


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=16, help="exemplar sets of the part")
    parser.add_argument("--steps", type=int, default=160, help="training steps")
    parser.add_argument("--prompts", type=int, default=8, help="prompts of a set; images are 3 times as many")
    parser.add_argument("--denoising", type=int, default=12, help="steps of a synthesized image")
    parser.add_argument("--pool", type=int, default=1500, help="images of a part of the pool")
    parser.add_argument("--encoders", nargs="+", default=["pixel", "layout"], help="of the demo's")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's temporary folder")
    return parser.parse_args(arguments)


def _image(number: int) -> bytes:
    """Patches of noise: as large a file as a drawing."""
    cells = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return to_png(cells.repeat(4, axis=0).repeat(4, axis=1))


def _stages(
    run: Path, config: dict[str, Any], options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The stages of a part, each as its script does it."""
    base = description.describe(bundled.FOLDER)
    prior = run.parent / "prior.parquet"
    rows = [
        {
            "kind": "object",
            "category": CATEGORY,
            "prior_index": number,
            "prompt": f"a {CATEGORY}",
            "seed": number,
        }
        | {"image": {"bytes": _image(number), "path": None}}
        for number in range(config["prior"]["images"])
    ]
    tables.write(prior, "prior", rows)
    sets = [
        ExemplarSet(f"object-{number}", "object", CATEGORY, {f"{number}.0": _image(1000 + number)})
        for number in range(options.sets)
    ]
    models, images = run / "models/part-0000.parquet", run / "synthesized/part-0000.parquet"

    def customize() -> None:
        family, given = families.split(config["customizer"])
        settings = {"family": family} | given | {"steps": options.steps}
        found = customization.customize(
            sets,
            prior,
            base,
            settings=settings,
            modifier_token=TOKEN,
            run=run,
            seed=SEED,
            code="x",
            device="cpu",
        )
        tables.write(models, "models", found)
        _recorded(run, "customize_part", models)

    def synthesize() -> None:
        prompts = [
            {"exemplar_set": one.name, "prompt_kind": "scene", "prompt_index": number}
            | {"prompt": f"a {TOKEN} {CATEGORY} in the snow", "control_prompt": f"a {CATEGORY} in the snow"}
            for one in sets
            for number in range(options.prompts)
        ]
        section = config["synthesis"]
        made = synthesis.synthesize(
            tables.read(models, "models").to_pylist(), prompts, base,
            **{name: section[name] for name in ("guidance", "batch", "image_format", "quality")},
            steps=options.denoising, samples_each=2, control_samples_each=1, run=run, seed=SEED, code="x",
            device="cpu",
        )  # fmt: skip
        parts.consolidate(images, "synthesized", parts.write(images, "synthesized", made), run=run)
        _recorded(run, "synthesize_part", images)

    yield "customize", customize
    yield "synthesize", synthesize
    pool = run.parent / "pool.parquet"
    columns = tables.schema("queries").names
    blank = dict.fromkeys(columns, "x") | {
        "prompt_index": 0,
        "sample_index": 0,
        "seed": 0,
        "image_format": "png",
    }
    tables.write(
        pool,
        "synthesized",
        [
            blank | {"query_id": str(number), "image": {"bytes": _image(5000 + number), "path": None}}
            for number in range(options.pool)
        ],
    )
    for name in options.encoders:
        encoder = encoder_protocol.load(config["encoders"][name], name, device="cpu")
        for what, path, by in (("queries", images, "exemplar_set"), ("pool", pool, None)):

            def embed(
                name: str = name,
                encoder: Any = encoder,
                what: str = what,
                path: Path = path,
                by: str | None = by,
            ) -> None:
                output = run / f"embeddings/{name}/{what}.parquet"
                conditions = {"encoder": config["encoders"][name], "code": "x"}
                wanted = embedding_part.find_pieces(
                    path, id_column="query_id", by=by, encoder=encoder, conditions=conditions
                )
                stored = embedding_part.stored_results(wanted, run=run, job=f"embed/{name}-{what}")
                with make_missing.all_claimed(stored, "embeddings"):
                    made = embedding_part.embed(path, wanted, stored, id_column="query_id", encoder=encoder)
                    with tables.writer(output, embedding_tables.schema(encoder)) as sink:
                        for table in made:
                            sink.write(table)
                    parts.consolidate(
                        output,
                        layout.EMBEDDINGS,
                        [(piece.key, len(piece.names)) for piece in wanted],
                        run=run,
                    )
                _recorded(run, f"embed_{what}_part", output)

            yield f"embed {what}, {name}", embed


def _recorded(run: Path, rule: str, output: Path) -> None:
    """The record of a job, with the digest of what it made."""
    job: dict[str, Any] = {"rule": rule, "log": [str(run / "logs" / f"{rule}.log")], "input": []}
    job_records.save(SimpleNamespace(**job, output=[str(output)], params={}, wildcards={"part": "0000"}))


if __name__ == "__main__":
    main()
