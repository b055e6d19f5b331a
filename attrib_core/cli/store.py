"""`python -m attrib_core store list | verify | gc`: what the store holds, whether it is sound, what may go."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError
from attrib_core.runtime import run_lock
from attrib_core.storage.store import garbage_collection, layout


def add(commands: Any) -> None:
    """Add `store` and its subcommands to those of the command line."""
    top = commands.add_parser("store", help="what is kept for all runs: list it, verify it, remove the rest")
    inner = top.add_subparsers(required=True, metavar="COMMAND")

    one = inner.add_parser("list", help="count what is there, and what each run refers to")
    _results(one)
    one.set_defaults(run=list_store)

    one = inner.add_parser("verify", help="check every file against the checksum of its record")
    _results(one)
    one.set_defaults(run=verify)

    one = inner.add_parser("gc", help="list what no run refers to; with --delete, remove it")
    one.add_argument(
        "--run", dest="name", metavar="NAME",
        help="list also what only jobs refer to that the config of this run no longer has",
    )  # fmt: skip
    one.add_argument(
        "--delete", action="store_true", help="remove what is listed; refused while a run is in work"
    )
    _results(one)
    one.set_defaults(run=collect)


def _results(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the runs; default: %(default)s"
    )


def _store(results: Path) -> Path:
    store = results / layout.STORE
    if not store.is_dir():
        raise InputError(f"{store}: no such folder; expected the store of the runs below {results}")
    return store


def list_store(arguments: argparse.Namespace) -> int:
    """Print pieces and bytes by kind, and by run."""
    store = _store(arguments.results)
    for kind in garbage_collection.KINDS:
        records = list((store / kind).glob("*.json"))
        size = garbage_collection.bytes_of(path for path in (store / kind).glob("*") if path.is_file())
        print(f"{kind}: {_count(len(records), 'entry', 'entries')}, {_bytes(size)}")
    for run in layout.runs(arguments.results):
        size = garbage_collection.bytes_of(garbage_collection.of_run(run))
        print(f"run {run.name}: refers to {_bytes(size)}")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Name what is damaged; status 1 where something is."""
    found = list(garbage_collection.damaged(_store(arguments.results)))
    for record in found:
        print(f"{record}: its files are not as they were written; {_remedy(record.parent.name)}")
    print(f"{len(found)} damaged" if found else "all files are as they were written")
    return 1 if found else 0


def _remedy(kind: str) -> str:
    if kind == garbage_collection.DELTAS:
        return "--forcerun customize_part of a run that needs them makes them again"
    return "a job that needs them makes them again"


def collect(arguments: argparse.Namespace) -> int:
    """List what may go, and remove it where that is asked."""
    store, results = _store(arguments.results), arguments.results
    if arguments.name and not (results / arguments.name).is_dir():
        print(f"run {arguments.name}: {results / arguments.name} is gone, and refers to nothing")
    if not arguments.delete:
        _listed(results, arguments.name, "would go; give --delete to remove it")
        return 0
    if (reason := run_lock.unreliable(store)) is not None:
        raise InputError(
            f"{store}: {reason}, so nobody can tell whether a run is in work; remove by hand what `gc` lists"
        )
    with layout.alone(store):
        garbage_collection.remove(*_listed(results, arguments.name, "removed"))
    return 0


def _listed(results: Path, name: str | None, verb: str) -> tuple[list[garbage_collection.Entry], list[Path]]:
    found, stale = garbage_collection.garbage(results, run=name)
    for entry in found:
        print(f"{entry.kind} {entry.name}: {_bytes(entry.bytes)}")
    for note in stale:
        print(f"note {note}: of a job that the config no longer has")
    size = sum(entry.bytes for entry in found)
    print(
        f"{_count(len(found), 'entry', 'entries')}, {_bytes(size)}: {verb}" if found else "nothing to remove"
    )
    return found, stale


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
