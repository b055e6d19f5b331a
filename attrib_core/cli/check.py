"""`python -m attrib_core check`: check a config, open what it names, and say what it asks for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrib_core.config.load import load_config, plain
from attrib_core.config.schema import Config


def add(commands: Any) -> None:
    """Add `check` to the commands of the command line."""
    one = commands.add_parser("check", help="check a config and say what it asks for")
    one.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    one.set_defaults(run=check)


def check(arguments: argparse.Namespace) -> int:
    """Check a config, open what it names, and print what it asks for."""
    from attrib_core.config import checks, preflight

    config = load_config(arguments.config)
    lines = [*summary(config), *preflight.open_all(plain(config))]
    print(f"{arguments.config}: fine")
    for line in lines:
        print(f"  {line}")
    if not config.exemplars.held_out_only:
        print("  warning: exemplars.held_out_only is false, so the base model may have seen exemplars")
    for line in [*checks.warnings(config), *checks.source_warnings(plain(config))]:
        print(f"  warning: {line}")
    return 0


def summary(config: Config) -> Iterator[str]:
    """Yield what a run of this config computes, one line a stage."""
    from attrib_core.config.planning import counts

    number, exemplars = counts.count(plain(config)), config.exemplars
    yield f"run: results/{config.run}, seed {config.seed}"
    yield f"pool: {number.pool} images of source {config.pool.source.family!r}"
    yield (
        f"exemplars: {number.models} sets ({exemplars.object_sets} of objects, {exemplars.style_sets} of styles)"
    )
    yield (
        f"models: {number.models} by {config.customizer.family!r} on base model {config.base_model.family!r}"
    )
    yield f"synthesized: {number.customized} images of customized models, {number.control} of the control"
    yield f"encoders: {', '.join(number.encoders)}"
    yield f"mappers: {', '.join(number.mappers)}"
