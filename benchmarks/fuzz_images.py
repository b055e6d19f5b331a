"""Damage image files at random and decode them: everything must end in an image or in a refusal.

    nice -n 15 python benchmarks/fuzz_images.py --mutations 100000

Small images in all formats that are read, and in others that Pillow would open, are changed: bytes replaced, cut
off, inserted, removed, copied within the file, the beginning of another format put in front. Each result is decoded
by `attrib_core.data.images.decode`, which may return (height, width, 3) uint8 or raise InputError; "other" counts
anything else. A process of its own decodes the files of a format: "crash" if it dies. "programs" counts processes
that Python or a fake Ghostscript in PATH saw to be started, "warnings" what Python would have printed, "lines" what
libraries in C wrote to standard error, "slowest" the longest decoding in milliseconds, "peak MB" the most memory
of the process, libraries included. The seed gives the same files again. Nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from PIL import Image

from attrib_core.common.errors import InputError
from attrib_core.data import images

TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "zstd")
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{}, {"progressive": True}],
    "WEBP": [{}, {"lossless": True}],
    "TIFF": [{"compression": name} for name in TIFF_COMPRESSIONS],
}  # fmt: skip
REFUSED = (
    "BLP", "DDS", "DIB", "EPS", "ICNS", "ICO", "JPEG2000", "MSP", "PCX", "PDF", "QOI", "SGI", "SPIDER", "TGA", "XBM",
)  # fmt: skip
"""Formats that Pillow writes and opens, and that are not read here."""
STARTED = "decoding starts here"
SEVERAL = ("PNG", "GIF", "WEBP", "TIFF", "AVIF", "MPO")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty")
COLUMNS = (
    "files", "images", "refused", "other", "crash", "programs", "warnings", "lines", "slowest", "peak_mb"
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Print counts for each format and return them; the last row has the sums, and the maxima of time and memory."""
    options = _options(arguments)
    if options.only:
        print(json.dumps(_fuzz(options.only, options.mutations, options.seed)))
        return []
    formats = options.formats
    print(f"{'format':10}" + "".join(f"{name:>10}" for name in COLUMNS))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        mark = _fake_programs(Path(folder))
        for number, kind in enumerate(formats):
            share = options.mutations * (number + 1) // len(formats) - options.mutations * number // len(
                formats
            )
            rows.append(_child(kind, share, options.seed, Path(folder), mark))
            print(_line(rows[-1]), flush=True)
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in COLUMNS}
    total |= {name: max(row[name] for row in rows) for name in ("slowest", "peak_mb")}
    rows.append({"format": "all"} | total)
    print(_line(rows[-1]))
    for row in rows[:-1]:
        for name, count in row.get("others", {}).items():
            print(f"{row['format']}: {count} times {name}")
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=100_000, help="files; default: %(default)s")
    parser.add_argument("--seed", type=int, default=2306, help="seed of the changes; default: %(default)s")
    parser.add_argument("--formats", nargs="+", default=[*images.FORMATS, *REFUSED], help="default: all")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the format that a child process decodes
    return parser.parse_args(arguments)


def seeds(kind: str) -> list[bytes]:
    """Return sound files of a format: small images in all modes that it has, with EXIF, transparency and frames."""
    grid = np.random.default_rng(1).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    rgba = Image.fromarray(grid, "RGBA").resize((20, 16), Image.Resampling.BICUBIC)
    deep = Image.fromarray(np.asarray(rgba.convert("L")).astype(np.uint16) * 257)
    shown = {mode: deep if mode == "I;16" else rgba.convert("RGB").convert(mode) for mode in MODES}
    shown |= {"RGBA": rgba, "LA": Image.merge("LA", [rgba.convert("L"), rgba.getchannel("A")])}
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010F] = 6, 72.0, "maker"
    made = []
    for mode, image in shown.items():
        for more in OPTIONS.get(kind, [{}]):
            made.append(_encoded(image, kind, **more))
        key = {"RGB": (3, 4, 5), "P": b"\0\x80\xff", "L": 7, "I;16": 700}.get(mode)
        if kind in ("PNG", "GIF") and key is not None:
            made.append(_encoded(image, kind, transparency=0 if kind == "GIF" else key))
    if kind in images.FORMATS:
        made.append(_encoded(shown["RGB"], kind, exif=exif))
    if kind in SEVERAL:
        turned = shown["RGB"].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        made.append(_encoded(shown["RGB"], kind, save_all=True, append_images=[turned]))
    return list(dict.fromkeys(data for data in made if data is not None))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes | None:
    """Return the file of an image; None where the format has no such image."""
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **options)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None
    return stream.getvalue()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return a file with one or a few changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 20))):
        if not changed:
            break
        place = min(rng.randrange(len(changed)), rng.randrange(len(changed)))  # headers more than pixels
        action = rng.random()
        if action < 0.55:
            changed[place] = rng.choice((rng.randrange(256), 0, 1, 127, 128, 255))
        elif action < 0.7:
            changed[place : place + 4] = rng.choice(
                (bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\0\0")
            )
        elif action < 0.78:
            changed[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif action < 0.86:
            del changed[place : place + rng.randrange(1, 9)]
        elif action < 0.94:
            start = rng.randrange(len(changed))
            changed[place : place + 16] = changed[start : start + 16]
        else:
            del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks made right, so that what was changed is looked at; else `data`."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    mended, place = bytearray(data), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        if end + 4 > len(data):
            break
        mended[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4)
        place = end + 4
    return bytes(mended)


def _fuzz(kind: str, mutations: int, seed: int) -> dict[str, Any]:
    """Decode changed files of a format and return counts."""
    programs, told = [], []
    sys.addaudithook(lambda event, _: programs.append(event) if event.startswith(STARTS) else None)
    warnings.showwarning = lambda *given, **_: told.append(given)  # type: ignore[assignment]
    rng, sound = random.Random(f"{seed} {kind}"), seeds(kind)
    counts: Counter[str] = Counter()
    others: Counter[str] = Counter()
    slowest = 0.0
    seeds_of_all()
    print(STARTED, file=sys.stderr, flush=True)  # libraries complain of modes that a format does not have
    for number in range(mutations):
        data = mutate(sound[number % len(sound)], rng)
        if rng.random() < 0.7:
            data = with_checksums(data)
        if rng.random() < 0.05:  # the beginning of another format
            other = seeds_of_all()[rng.randrange(len(seeds_of_all()))]
            data = other[: rng.randrange(2, 24)] + data[rng.randrange(24) :]
        began = time.perf_counter()
        try:
            image = images.decode(data, where="x").image
            good = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
            counts["images" if good else "other"] += 1
        except InputError:
            counts["refused"] += 1
        except Exception as error:
            counts["other"] += 1
            others[f"{type(error).__name__}: {error}"[:100]] += 1
        slowest = max(slowest, time.perf_counter() - began)
    row = {name: counts[name] for name in ("images", "refused", "other")}
    row |= {"files": mutations, "programs": len(programs), "warnings": len(told), "others": dict(others)}
    return row | {"slowest": 1000 * slowest, "peak_mb": _peak_mb()}


def seeds_of_all(made: list[bytes] = []) -> list[bytes]:  # noqa: B006, the list is made once
    """Return one file of each format."""
    if not made:
        made += [seeds(kind)[0] for kind in (*images.FORMATS, *REFUSED)]
    return made


def _peak_mb() -> float:
    """Return the most memory that this process had, in MB; `getrusage` would count its parent's too."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1000


def _fake_programs(folder: Path) -> Path:
    """Write programs that leave a mark when they are started, by the names that Pillow knows; return the mark."""
    mark = folder / "started"
    for name in (
        "gs",
        "gswin32c",
        "gswin64c",
        "djpeg",
        "cjpeg",
        "ppmtogif",
        "sips",
        "iconutil",
        "xv",
        "display",
    ):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {name} >> {mark}\nexit 1\n")
        program.chmod(0o755)
    return mark


def _child(kind: str, mutations: int, seed: int, folder: Path, mark: Path) -> dict[str, Any]:
    """Decode the files of a format in a process of its own."""
    command = [sys.executable, __file__, "--only", kind, "--mutations", str(mutations), "--seed", str(seed)]
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode:
        print(f"{kind}: the process ended with {done.returncode}:\n{done.stderr[-2000:]}")
        row = dict.fromkeys(COLUMNS, 0) | {"crash": 1}
    else:
        row = json.loads(done.stdout) | {"crash": 0, "lines": done.stderr.split(STARTED)[-1].count("\n") - 1}
    if mark.exists():
        row["programs"] += len(mark.read_text().splitlines())
        mark.unlink()
    return {"format": kind} | row


def _line(row: dict[str, Any]) -> str:
    return f"{row['format']:10}" + "".join(f"{row[name]:10.0f}" for name in COLUMNS)


if __name__ == "__main__":
    main()
