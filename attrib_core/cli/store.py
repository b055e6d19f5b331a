"""`python -m attrib_core store list | verify | gc`: list, check and clean up the store of all runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError
from attrib_core.runtime import run_lock
from attrib_core.storage.store import garbage_collection, layout, locks, references


def add(commands: Any) -> None:
    """Add `store` and its subcommands to the command line."""
    top = commands.add_parser("store", help="list, verify or clean up what is stored for all runs")
    inner = top.add_subparsers(required=True, metavar="COMMAND")

    one = inner.add_parser("list", help="count the entries, and what each run refers to")
    _results(one)
    one.set_defaults(run=list_store)

    one = inner.add_parser("verify", help="check every file against the checksum in its record")
    _results(one)
    one.set_defaults(run=verify)

    one = inner.add_parser("gc", help="list what no run refers to; with --delete, remove it")
    one.add_argument(
        "--run", dest="name", metavar="NAME",
        help="also list what is referred to only by jobs that the config of this run no longer has",
    )  # fmt: skip
    one.add_argument(
        "--delete", action="store_true", help="remove what is listed; refused while a run is in progress"
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
    """Print the number of entries and bytes by kind, and bytes by run."""
    store = _store(arguments.results)
    for kind in layout.KINDS:
        records = list((store / kind).glob("*.json"))
        size = garbage_collection.disk_usage(path for path in (store / kind).glob("*") if path.is_file())
        print(f"{kind}: {_count(len(records), 'entry', 'entries')}, {_bytes(size)}")
    for run in references.runs(arguments.results):
        size = garbage_collection.disk_usage(garbage_collection.files_of_run(run))
        print(f"run {run.name}: refers to {_bytes(size)}")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Print the damaged entries; exit status 1 if there are any."""
    found = list(garbage_collection.find_damaged(_store(arguments.results)))
    for record in found:
        print(f"{record}: its files have changed since they were written; {_remedy(record.parent.name)}")
    print(f"{len(found)} damaged" if found else "all files are unchanged")
    return 1 if found else 0


def _remedy(kind: str) -> str:
    if kind == layout.DELTAS:
        return "run a workflow that needs them with --forcerun customize_part to restore them"
    return "the next job that needs them restores them"


def collect(arguments: argparse.Namespace) -> int:
    """List what can be removed, and remove it with --delete."""
    store, results = _store(arguments.results), arguments.results
    if arguments.name and not (results / arguments.name).is_dir():
        print(f"run {arguments.name}: {results / arguments.name} does not exist, and refers to nothing")
    if not arguments.delete:
        _print_garbage(results, arguments.name, "can be removed with --delete")
        return 0
    if (reason := run_lock.unreliable(store)) is not None:
        raise InputError(
            f"{store}: {reason}, so it is unknown whether a run is in progress; remove what `gc` lists by hand"
        )
    with locks.exclusive(store):
        garbage_collection.remove(*_print_garbage(results, arguments.name, "removed"))
    return 0


def _print_garbage(
    results: Path, name: str | None, verb: str
) -> tuple[list[garbage_collection.Entry], list[Path]]:
    found, stale = garbage_collection.find_garbage(results, run=name)
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
