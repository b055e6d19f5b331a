"""`python -m attrib_core delta import | export | describe`: exchange deltas with other trainers and tools."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError, printable, shown

if TYPE_CHECKING:
    from attrib_core.diffusion.deltas.import_export import Base

LAYOUTS = ("lora", "unet", "published", "custom-diffusion", "diffusers")
BUNDLED = "bundled"
LONGEST_NAME = 200
"""Bytes of a name, to which endings are added."""


def add(commands: Any) -> None:
    """Add `delta` and its subcommands to the command line."""
    top = commands.add_parser("delta", help="import, export or describe what customization changed")
    inner = top.add_subparsers(required=True, metavar="COMMAND")

    one = inner.add_parser(
        "import", help="check a delta of another trainer and convert it to this project's files"
    )
    _source(one)
    _base(one, required=True)
    one.add_argument("--name", help="name of the written files; default: that of the file")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for them")
    one.set_defaults(run=import_delta)

    one = inner.add_parser("export", help="write a delta in a layout that other tools open")
    _source(one)
    _base(one, required=True)
    one.add_argument(
        "--layout", choices=LAYOUTS, default="lora",
        help="lora: for load_lora_weights and most tools; unet: safetensors of UNet keys; published: as the published"
        " deltas; custom-diffusion: delta.bin; diffusers: its Custom Diffusion files; default: %(default)s",
    )  # fmt: skip
    one.add_argument(
        "--rank", type=int, metavar="N", help="largest rank of a LoRA's matrices; default: no limit"
    )
    one.add_argument(
        "--share", type=float, default=1.0, metavar="S",
        help="share of the sum of singular values that a LoRA keeps; 0.6 is common; default: 1, all of it",
    )  # fmt: skip
    one.add_argument(
        "--without-biases", action="store_true", help="leave out biases, which a LoRA cannot represent"
    )
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    one.set_defaults(run=export_delta)

    one = inner.add_parser("describe", help="show method, sizes and norms of a delta")
    _source(one)
    _base(one, required=False)
    one.set_defaults(run=describe_delta)


def _source(one: argparse.ArgumentParser) -> None:
    one.add_argument("delta", type=Path, metavar="FILE", help="delta in any layout: .safetensors, .pt, .bin")
    one.add_argument(
        "--token-file", type=Path, nargs="+", default=[], metavar="F",
        help="files of its tokens, if they are separate, such as '<new1>.bin'",
    )  # fmt: skip
    one.add_argument(
        "--token",
        metavar="NAME",
        help="name of its token; default: as in the file, or the name of a web UI's file",
    )


def _base(one: argparse.ArgumentParser, *, required: bool) -> None:
    one.add_argument(
        "--base", required=required, metavar="DIR",
        help=f"base model, a folder in diffusers layout, or {BUNDLED!r}" + ("" if required else "; not needed"),
    )  # fmt: skip


def _open_base(given: str) -> Base:
    from attrib_core.common import families
    from attrib_core.diffusion.deltas import import_export

    if given == BUNDLED:
        return import_export.open_base(families.load("base_models", BUNDLED, {}).path)
    return import_export.open_base(Path(given).expanduser())


def _check_length(where: str, name: str) -> None:
    """Raise InputError for a name that is too long for the names of files made of it, which may have 255 bytes."""
    if (length := len(os.fsencode(name))) > LONGEST_NAME:
        raise InputError(
            f"{where}: {shown(name)} is {length} bytes long, expected at most {LONGEST_NAME}: files are named by it"
        )


def import_delta(arguments: argparse.Namespace) -> int:
    """Read a delta, check it against the base model, write it, and print the paths."""
    from attrib_core.diffusion.deltas import import_export

    name = arguments.name or arguments.delta.stem
    _check_length("--name", name)
    _check_length("--token", arguments.token or "")
    paths, contents = import_export.import_delta(
        arguments.delta, arguments.token_file, _open_base(arguments.base), arguments.out, name,
        arguments.token,
    )  # fmt: skip
    print(printable(f"{arguments.delta}: {import_export.method(contents)}"))
    for path in paths:
        print(f"wrote {path}")
    return 0


def export_delta(arguments: argparse.Namespace) -> int:
    """Read and check a delta, write it in the chosen layout, and print the paths."""
    from attrib_core.diffusion.deltas import import_export, layouts

    if arguments.layout != "lora" and (arguments.rank is not None or arguments.share != 1):
        raise InputError(f"--rank and --share are for --layout lora, not {arguments.layout!r}")
    base = _open_base(arguments.base)
    contents = layouts.read(arguments.delta, arguments.token_file, arguments.token)
    for token in contents.tokens:
        _check_length(f"{arguments.delta}: token", token)
    import_export.check_whole(contents, arguments.delta)
    import_export.check_fit(contents, base, arguments.delta)
    for path in import_export.export_delta(
        contents, base, arguments.layout, arguments.out,
        rank=arguments.rank, share=arguments.share, biases=not arguments.without_biases,
    ):  # fmt: skip
        print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0


def describe_delta(arguments: argparse.Namespace) -> int:
    """Print method, sizes and norms of a delta."""
    from attrib_core.diffusion.deltas import import_export, layouts

    contents = layouts.read(arguments.delta, arguments.token_file, arguments.token)
    base = None
    if arguments.base is not None:
        base = _open_base(arguments.base)
        import_export.check_fit(contents, base, arguments.delta)
    size = sum(path.stat().st_size for path in (arguments.delta, *arguments.token_file))
    print(printable(str(arguments.delta)))
    for line in import_export.describe(contents, size, base):
        print(printable(f"  {line}"))  # names in the file may have any character
    return 0
