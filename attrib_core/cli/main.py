"""The command line: `python -m attrib_core check | plan | status | attribute | why | docs | store | abc | delta`."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from attrib_core.cli import abc as released
from attrib_core.cli import attribute as attribution
from attrib_core.cli import delta as customization
from attrib_core.cli import store
from attrib_core.cli import why as reasons
from attrib_core.common.errors import InputError
from attrib_core.config.load import Config, load_config, plain, stated_config
from attrib_core.config.schema import Mapper
from attrib_core.features.heads import heads


def check(arguments: argparse.Namespace) -> int:
    """Check a config, open what it names, and say what it asks for."""
    from attrib_core.config import checks, preflight

    config = load_config(arguments.config)
    lines = [*summary(config), *preflight.opened(plain(config))]
    print(f"{arguments.config}: fine")
    for line in lines:
        print(f"  {line}")
    if not config.exemplars.held_out_only:
        print("  warning: exemplars.held_out_only is false, so the base model may have seen exemplars")
    for line in checks.untested(config):
        print(f"  warning: {line}")
    return 0


def summary(config: Config) -> list[str]:
    """What a run of this config makes, a line each."""
    exemplars, prompts = config.exemplars, config.prompts
    sets = exemplars.object_sets + exemplars.style_sets
    lists = exemplars.object_sets * len(prompts.object) + exemplars.style_sets * len(prompts.style)
    asked = prompts.prompts_each * lists
    head, shared = config.mapper.head, config.mapper.shared
    mappers = [heads.name(head, shared=shared, kind=kind) for kind in config.mapper.trained_on]
    return [
        f"run: results/{config.run}, seed {config.seed}",
        f"pool: {config.pool.images} images of source {config.pool.source.family!r}",
        f"exemplars: {sets} sets ({exemplars.object_sets} of objects, {exemplars.style_sets} of styles)",
        f"models: {sets} by {config.customizer.family!r} on base model {config.base_model.family!r}",
        f"synthesized: {asked * prompts.samples_each} images of customized models,"
        f" {asked * prompts.control_samples_each} of the control",
        f"encoders: {', '.join(config.encoders)}",
        f"mappers: untuned, {', '.join(mappers)}",
    ]


def plan(arguments: argparse.Namespace) -> int:
    """Say what a run of a config will take; neither images nor weights need be there for that."""
    from attrib_core.config.planning import plan as plans

    found = plans.planned(plain(stated_config(arguments.config)), run=arguments.rates)
    print(arguments.config)
    for line in plans.lines(found):
        print(f"  {line}".rstrip())
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Say how far a run is, what failed, and what is still to come."""
    from attrib_core.config.planning import status as states

    config = plain(stated_config(arguments.config))
    for line in states.lines(arguments.folder, config):
        print(line.rstrip())
    return 0


def docs(arguments: argparse.Namespace) -> int:
    """Write the generated pages of the documentation, or show in how far they are stale."""
    from attrib_core.cli.docs import documents

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


def parser() -> argparse.ArgumentParser:
    """All subcommands, one function each."""
    top = argparse.ArgumentParser(
        prog="python -m attrib_core", description="Data attribution benchmark and toolkit"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("check", help="check a config and say what it asks for")
    one.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    one.set_defaults(run=check)

    one = commands.add_parser(
        "plan", help="say what a run of a config will take: models, images, bytes, device-hours"
    )
    one.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    one.add_argument(
        "--rates",
        type=Path,
        metavar="RUN",
        help="folder of a run, finished or not, such as results/demo: its measured times and sizes are taken",
    )
    one.set_defaults(run=plan)

    one = commands.add_parser("status", help="say how far a run is, what failed, what is to come")
    one.add_argument("folder", type=Path, metavar="RUN", help="folder of the run, such as results/demo")
    one.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="that of the run; default: %(default)s"
    )
    one.set_defaults(run=status)

    one = commands.add_parser(
        "docs", help="write docs/config.md, docs/data.md and docs/reruns.md from the code"
    )
    one.add_argument(
        "--check", action="store_true", help="write nothing; status 1 and the difference if stale"
    )
    one.add_argument("--root", type=Path, default=Path(), help="root of the repository; default: this folder")
    one.set_defaults(run=docs)

    attribution.add(commands)
    reasons.add(commands)
    store.add(commands)
    released.add(commands, mapper=Mapper)
    customization.add(commands)
    return top


def main(given: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status. What the user got wrong is one line and status 2."""
    arguments = parser().parse_args(given)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Who read has seen enough ("| head"); the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
