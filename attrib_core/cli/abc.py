"""`python -m attrib_core abc COMMAND`: make, tune on, evaluate and export AbC files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrib_core.cli import abc_calibrate, abc_compare, abc_embed, abc_evaluate, abc_export, abc_tune

if TYPE_CHECKING:
    from pydantic import BaseModel


def add(commands: Any, *, mapper: type[BaseModel]) -> None:
    """Add `abc` and its commands to the command line; `mapper` is that section of the config."""
    top = commands.add_parser("abc", help="work with the published benchmark's files (AbC)")
    inner = top.add_subparsers(required=True, metavar="COMMAND")
    abc_embed.add(inner.add_parser("embed", help="compute features of a test case's or a pool's images"))
    abc_tune.add(inner.add_parser("tune", help="train a mapper on features"), mapper)
    abc_evaluate.add(inner.add_parser("evaluate", help="compute exact metrics of features, with intervals"))
    abc_calibrate.add(inner.add_parser("calibrate", help="fit and evaluate calibrators, compute soft scores"))
    abc_compare.add(inner.add_parser("compare", help="compare two evaluations, with p-values"))
    abc_export.add(inner.add_parser("export", help="write a run as AbC files"))
