"""Measure throughput and memory of embedding: a plain loop over a DataLoader, ours, and the stages of ours.

    OMP_NUM_THREADS=1 python benchmarks/embedding.py --images 20000 --side 256 --size 96

JPEG images (a hundred or so different ones, repeated), EfficientNet-Lite0 with the weights of its package. One
computing thread unless OMP_NUM_THREADS is set. Each method runs in a separate process, so that its peak memory is
known; the clock starts when the network is loaded. The methods:

    plain loop     files, torchvision's transforms, torch's DataLoader with --workers processes, batches
                   of --batch, features collected and saved at the end: how features of the published
                   benchmark are computed, reimplemented from its description
    ours           `encode_table`: a Parquet file in, a Parquet file out, as in a job of the workflow
    ours, threads  the same with --threads threads that decode ahead
    decoding       only what `ours` does before the network: read, decode, resample, normalize
    network        only what it does after that, with --at-once images, repeatedly

Output: images per second, images per second of processor time (the relevant figure during other work; "of plain"
compares these), and peak resident memory, for the plain loop with its workers. All features must agree to 1e-4 of
their length. --enforce exits with status 1 if ours is slower than the plain loop or needs more than --limit MB.
Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from attrib_core.common import families
from attrib_core.data.images import to_rgb
from attrib_core.features.embedding import embedding_tables, encode
from attrib_core.storage import tables

DIFFERENT, ROWS = 500, 1000
NETWORK = {"architecture": "tf_efficientnet_lite0", "weights": "efficientnet-lite0"}
TOLERANCE = 1e-4
COLUMNS = ("a second", "a CPU second", "seconds", "peak MB", "of plain")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run all methods; prints a table and returns its rows."""
    options = _options(arguments)
    if options.method:
        print(json.dumps(_run(options.method, Path(options.folder), options)))
        return []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _generate(Path(folder), options)
        rows = [_measured(method, folder, options) for method in METHODS]
        _check(Path(folder))
    plain = rows[0]["per_cpu_second"]
    print(f"{options.images} JPEG images of {options.side} pixels, network at {options.size},", end=" ")
    print(f"{os.environ['OMP_NUM_THREADS']} threads, {options.workers} workers of the DataLoader")
    print("  " + " " * 14 + "".join(f"{name:>13}" for name in COLUMNS))
    for row in rows:
        row["of_plain"] = row["per_cpu_second"] / plain
        values = f"{row['per_second']:13.1f}{row['per_cpu_second']:13.1f}{row['seconds']:13.1f}"
        values += f"{row['peak_mb']:13.0f}{row['of_plain']:13.2f}"
        print(f"  {row['method']:14}{values}")
    by_method = {row["method"]: row for row in rows}
    share = by_method["ours"]["per_cpu_second"] / by_method["decoding"]["per_cpu_second"]
    print(f"decoding is {100 * share:.0f} % of the time of 'ours'; the bottleneck is", end=" ")
    print("decoding" if share > 0.5 else "the network")
    ours = by_method["ours"]
    met = ours["of_plain"] >= 1 and ours["peak_mb"] <= options.limit
    if options.enforce and not met:
        raise SystemExit(1)
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=256, help="of an image, pixels")
    parser.add_argument("--size", type=int, default=96, help="that the network sees, pixels")
    parser.add_argument("--batch", type=int, default=64, help="of the plain loop")
    parser.add_argument("--workers", type=int, default=1, help="processes of the DataLoader")
    parser.add_argument("--threads", type=int, default=2, help="of ours that decode")
    parser.add_argument("--at-once", type=int, default=200, help="images in memory for the network alone")
    parser.add_argument("--limit", type=float, default=1500, help="MB of ours, for --enforce")
    parser.add_argument("--folder", help="where temporary folders are made")
    parser.add_argument("--enforce", action="store_true", help="status 1 where a limit is missed")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _measured(method: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    names = ("images", "side", "size", "batch", "workers", "threads", "at_once")
    settings = [word for name in names for word in (f"--{name.replace('_', '-')}", getattr(options, name))]
    command = [sys.executable, __file__, "--folder", folder, "--method", method, *settings]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return {"method": method} | json.loads(done.stdout)


def _run(method: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    work, count = METHODS[method](folder, options)
    started, cpu = time.perf_counter(), _cpu()
    work()
    seconds, cpu = time.perf_counter() - started, _cpu() - cpu
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * options.workers
    peak = own + (child if method == "plain loop" else 0)
    rates = {"per_second": count / seconds, "per_cpu_second": count / cpu}
    return rates | {"seconds": seconds, "peak_mb": peak / 1024}


def _cpu() -> float:
    """Seconds of processor time so far, of this process and of its finished children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _generate(folder: Path, options: argparse.Namespace) -> None:
    """The same images as files and as a Parquet file."""
    random = np.random.default_rng(0)
    (folder / "files").mkdir()
    encoded = []
    for _ in range(min(DIFFERENT, options.images)):
        cells = random.integers(0, 256, (options.side // 8, options.side // 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        shown = Image.fromarray(cells).resize((options.side, options.side), Image.Resampling.BICUBIC)
        shown.save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    schema = pa.schema([("image_id", pa.string()), ("image", tables.IMAGE)])
    with pq.ParquetWriter(folder / "images.parquet", schema) as sink:
        for start in range(0, options.images, ROWS):
            numbers = range(start, min(start + ROWS, options.images))
            images = [{"bytes": encoded[number % len(encoded)], "path": None} for number in numbers]
            sink.write_table(
                pa.table(
                    {"image_id": [f"{number:07d}" for number in numbers], "image": images}, schema=schema
                )
            )
    for number in range(options.images):
        path = folder / "files" / f"{number:07d}.jpg"
        if number < len(encoded):
            path.write_bytes(encoded[number])
        else:
            os.link(folder / "files" / f"{number % len(encoded):07d}.jpg", path)


def _encoder(options: argparse.Namespace) -> Any:
    return families.load("encoders", "timm", NETWORK | {"size": options.size}, device="cpu")


def _plain(folder: Path, options: argparse.Namespace) -> tuple[Callable[[], None], int]:
    import torch
    from torchvision import transforms

    encoder = _encoder(options)
    network, files = encoder._network, sorted((folder / "files").iterdir())
    transform = transforms.Compose(
        [
            transforms.Resize(options.size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(options.size),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, number: int) -> Any:
            return transform(Image.open(files[number]).convert("RGB"))

    loader = torch.utils.data.DataLoader(Files(), batch_size=options.batch, num_workers=options.workers)

    def work() -> None:
        with torch.no_grad():
            features = torch.cat([network(batch) for batch in loader])
        np.save(folder / "plain loop.npy", features.numpy())

    return work, options.images


def _ours(threads: int) -> Callable[[Path, argparse.Namespace], tuple[Callable[[], None], int]]:
    def prepared(folder: Path, options: argparse.Namespace) -> tuple[Callable[[], None], int]:
        encoder = _encoder(options)
        number = options.threads if threads else 0
        target = folder / f"ours-{threads}.parquet"

        def work() -> None:
            chunks = encode.encode_table(
                folder / "images.parquet", id_column="image_id", encoder=encoder, threads=number
            )
            with tables.writer(target, embedding_tables.schema(encoder)) as sink:
                for ids, features in chunks:
                    sink.write(tables.embedding_table(ids, features))

        return work, options.images

    return prepared


def _decoding(folder: Path, options: argparse.Namespace) -> tuple[Callable[[], None], int]:
    prepare = _encoder(options).prepare

    def work() -> None:
        for batch in pq.ParquetFile(folder / "images.parquet").iter_batches(256, columns=["image"]):
            for image in batch.column("image"):
                prepare(to_rgb(image["bytes"].as_py(), where="an image"))

    return work, options.images


def _network(folder: Path, options: argparse.Namespace) -> tuple[Callable[[], None], int]:
    encoder = _encoder(options)
    files = sorted((folder / "files").iterdir())[: options.at_once]
    ready = [encoder.prepare(to_rgb(path.read_bytes(), where=str(path))) for path in files]
    times = max(1, min(options.images, 2000) // len(ready))

    def work() -> None:
        for _ in range(times):
            encoder.encode_prepared(ready)

    return work, times * len(ready)


def _check(folder: Path) -> None:
    """All must give the same features, or the times mean nothing."""
    plain = np.load(folder / "plain loop.npy")
    for threads in (0, 1):
        _, own = embedding_tables.read(folder / f"ours-{threads}.parquet")
        apart = np.linalg.norm(own - plain, axis=1) / np.linalg.norm(plain, axis=1)
        if not apart.max() < TOLERANCE:
            raise SystemExit(f"features of ours differ from the plain loop's by {apart.max():.1e}")


METHODS: dict[str, Callable[[Path, argparse.Namespace], tuple[Callable[[], None], int]]] = {
    "plain loop": _plain,
    "ours": _ours(0),
    "ours, threads": _ours(1),
    "decoding": _decoding,
    "network": _network,
}

if __name__ == "__main__":
    main()
