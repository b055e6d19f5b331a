"""The one error that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave is wrong: a key, a value, a file.

    The message is one line that names the key or file, the value, and what
    would be right. Command line and workflow print it without a traceback.
    """


def close_matches(name: str, choices: Iterable[str]) -> str:
    """The end of an error message: near names first, else all the choices."""
    known = sorted(choices)
    if not known:
        return "there is none to choose"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(choice) for choice in near) + "?"
    return "choose one of " + ", ".join(repr(choice) for choice in known)
