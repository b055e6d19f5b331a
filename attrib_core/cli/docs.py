"""`python -m attrib_core docs`: write the generated pages of the documentation, or check them."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add `docs` to the commands of the command line."""
    one = commands.add_parser(
        "docs", help="write docs/config.md, docs/data.md and docs/reruns.md from the code"
    )
    one.add_argument(
        "--check", action="store_true", help="write nothing; status 1 and the difference if stale"
    )
    one.add_argument("--root", type=Path, default=Path(), help="root of the repository; default: this folder")
    one.set_defaults(run=docs)


def docs(arguments: argparse.Namespace) -> int:
    """Write the generated pages, or with --check print how the stale ones differ."""
    from attrib_core.config.documentation import documents

    stale = False
    for name, text in documents().items():
        path = arguments.root / name
        current = path.read_text("utf-8") if path.exists() else ""
        if current == text:
            continue
        stale = True
        if arguments.check:
            old, new = current.splitlines(keepends=True), text.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(old, new, name, f"{name}, as generated"))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {path}")
    if stale and arguments.check:
        print("error: docs are stale; run `python -m attrib_core docs`", file=sys.stderr)
        return 1
    return 0
