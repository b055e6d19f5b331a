"""Parse the command line of `python -m attrib_core` and run the chosen command."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence

from attrib_core.cli import abc, attribute, check, delta, docs, plan, status, store, why
from attrib_core.common.errors import InputError, printable, reason, shown_path
from attrib_core.config.schema_evaluation import Mapper


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `run`, the function that runs it."""
    top = argparse.ArgumentParser(
        prog="python -m attrib_core", description="Data attribution benchmark and toolkit"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in (check, plan, status, docs, attribute, why, store):
        command.add(commands)
    abc.add(commands, mapper=Mapper)
    delta.add(commands)
    return top


def main(given: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; a mistake of the user's is one line and status 2."""
    arguments = parser().parse_args(given)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # for names that are not UTF-8, and terminals that are not
    try:
        exit_status: int = arguments.run(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has closed the pipe ("| head"); the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of a path among the arguments
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"error: no such file: {shown_path(error.filename)}: {reason(error)}", file=sys.stderr)
        return 2
    return exit_status
