"""Measure the additional cost of the store in a job of embedding, by encoder and size of its part.

    OMP_NUM_THREADS=1 python benchmarks/store_embedding.py --rows 400 2000 --checkouts . ../before

In turn, in one process: the part without a store (read, encode, write the table), with an empty store, and with a
full one, as in the workflow's script, references of the run and the record of the job included. Images are of 64
pixels and about 4 kB. `pool` is a part with one piece, `queries` one with a piece for every 24 rows. The difference is
the cost of the store, in milliseconds and as a share of the part without it, then as a share of the job, which
starts with a new process that imports and loads the encoder. The least time of all repeats counts, since other work
only adds. Processor time, and wall time, which is less reliable on a shared machine; fsyncs and links are in both.
With several --checkouts of the project, their processes take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parent.parent
ENCODERS: dict[str, dict[str, Any]] = {
    "pixel": {"family": "pixel", "size": 16},
    "lite0": {
        "family": "timm", "architecture": "tf_efficientnet_lite0", "weights": "efficientnet-lite0"
    },
}  # fmt: skip
PARTS = {"pool": None, "queries": "exemplar_set"}
ROWS_OF_A_SET = 24
METHODS = ("without", "made", "there already")
Times = dict[str, list[tuple[float, float]]]
"""Seconds of the processor and of the wall, by method."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure all encoders, kinds of parts and sizes; prints a table and returns its rows."""
    options = _options(arguments)
    if options.child:
        print(json.dumps(_child(Path(options.child), options)))
        return []
    rows = []
    print("ms of the processor / of the wall, the least of all repeats; shares are of the processor's time")
    print("| part | encoder | rows | checkout | without | made: more | share | of the job | there already |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for part in options.parts:
        for encoder in options.encoders:
            for size in options.rows:
                for row in _measured(part, encoder, size, options):
                    rows.append(row)
                    print(_told(row), flush=True)
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[400, 2000, 10000], help="images of a part")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="processes of each checkout")
    parser.add_argument("--repeats", type=int, default=3, help="of each method in a process")
    parser.add_argument("--checkouts", type=Path, nargs="+", default=[ROOT], help="folders of the project")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _measured(part: str, encoder: str, size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each checkout; their processes take turns."""
    times: dict[Path, Times] = {checkout: defaultdict(list) for checkout in options.checkouts}
    for _ in range(options.rounds):
        for checkout, found in times.items():
            command = [sys.executable, __file__, "--child", str(checkout.resolve()), "--parts", part]
            command += ["--encoders", encoder, "--rows", str(size), "--repeats", str(options.repeats)]
            command += ["--folder", str(options.folder)] if options.folder else []
            began = time.time()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_environment(began))
            for name, given in json.loads(done.stdout).items():
                found[name] += [(cpu, wall) for cpu, wall in given]
    return [
        {"part": part, "encoder": encoder, "rows": size, "checkout": checkout.resolve().name}
        | {name: tuple(min(column) for column in zip(*given, strict=True)) for name, given in found.items()}
        for checkout, found in times.items()
    ]


def _environment(began: float) -> dict[str, str]:
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return single | os.environ | {"BEGAN": str(began), "HF_HUB_OFFLINE": "1"}


def _told(row: dict[str, Any]) -> str:
    (cpu, wall), made, there = row["without"], row["made"], row["there already"]
    more = made[0] - cpu, made[1] - wall

    def ms(pair: tuple[float, float]) -> str:
        return f"{1000 * pair[0]:.1f} / {1000 * pair[1]:.0f}"

    cells = [row["part"], row["encoder"], f"{row['rows']:,}", row["checkout"], ms((cpu, wall)), ms(more)]
    cells += [f"{100 * more[0] / cpu:.1f} %", f"{100 * more[0] / (row['start'][0] + cpu):.1f} %", ms(there)]
    return f"| {' | '.join(cells)} |"


def _child(checkout: Path, options: argparse.Namespace) -> Times:
    """In a separate process: measure seconds until the encoder is loaded, then of each method in turn."""
    sys.path.insert(0, str(checkout))
    from attrib_core.features.embedding import embed, embedding_tables, encode, encoder_protocol
    from attrib_core.runtime import job_records
    from attrib_core.storage import tables
    from attrib_core.storage.store import layout, make_missing, parts

    (kind,), (name,), (size,) = options.parts, options.encoders, options.rows
    encoder = encoder_protocol.load(ENCODERS[name], name, device="cpu")
    times: Times = defaultdict(list)
    times["start"].append((time.process_time(), time.time() - float(os.environ["BEGAN"])))
    read = {"id_column": "query_id", "encoder": encoder}

    def written(output: Path, made: Any) -> None:
        with tables.writer(output, embedding_tables.schema(encoder)) as sink:
            for table in made:
                sink.write(table)

    def stored(images: Path, run: Path) -> None:
        output = run / "embeddings.parquet"
        conditions = {"encoder": ENCODERS[name], "code": "x"}
        wanted = embed.find_pieces(images, by=PARTS[kind], conditions=conditions, **read)
        stored = embed.stored_results(wanted, run=run, job="embed/x")
        with make_missing.all_claimed(stored, "embeddings"):
            written(output, embed.embed(images, wanted, stored, **read))
            spans = [(piece.key, len(piece.names)) for piece in wanted]
            parts.consolidate(output, layout.EMBEDDINGS, spans, run=run)
        given: dict[str, Any] = {"rule": "embed", "log": [str(run / "logs/x.log")], "input": [], "params": {}}
        job_records.save(SimpleNamespace(**given, output=[str(output)], wildcards={}))

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        images = Path(folder, "images.parquet")
        _write_images(images, size)
        for repeat in range(1 + options.repeats):  # the first sets libraries up
            run = Path(folder, str(repeat), "results", "run")
            methods: list[Callable[[], None]] = [
                lambda run=run: written(
                    run / "plain.parquet",
                    (tables.embedding_table(*chunk) for chunk in encode.encode_table(images, **read)),
                ),
                lambda run=run: stored(images, run),
                lambda run=run: stored(images, run),
            ]
            for method, work in zip(METHODS, methods, strict=True):
                _forget()
                cpu, wall = time.process_time(), time.perf_counter()
                work()
                if repeat:
                    times[method].append((time.process_time() - cpu, time.perf_counter() - wall))
    return times


def _forget() -> None:
    """Clear the cache of digests: each method is timed as in a separate job."""
    from attrib_core.storage import digests

    digests._read.clear()


def _write_images(path: Path, size: int) -> None:
    import numpy as np

    from attrib_core.data.images import to_png
    from attrib_core.storage import tables

    blank = dict.fromkeys(tables.schema("queries").names, "x")
    blank |= {"prompt_index": 0, "sample_index": 0, "seed": 0, "image_format": "png"}
    rows = []
    for number in range(size):
        cells = np.random.default_rng(number).integers(0, 256, (34, 34, 3), dtype=np.uint8)
        data = to_png(cells.repeat(2, axis=0).repeat(2, axis=1)[:64, :64])
        own = {"query_id": f"{number:06d}", "exemplar_set": f"object-{number // ROWS_OF_A_SET:04d}"}
        rows.append(blank | own | {"image": {"bytes": data, "path": None}})
    tables.write(path, "synthesized", rows)


if __name__ == "__main__":
    main()
