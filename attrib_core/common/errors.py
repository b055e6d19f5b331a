"""The error for wrong input, whose message is written for the user."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong input of the user: a config key, a value, a file.

    The message is one line that names the key or file, the value, and what would be right. The command line and the
    workflow print it without a traceback.
    """

    key = ""

    def under(self, key: str) -> InputError:
        """Return the error with the config key under which it arose in front.

        "weights: no file" becomes "parts.a: weights: no file", and a further call makes it
        "encoders.x.parts.a: weights: no file". A message that begins with the key stays as it is.
        """
        message = str(self)
        if message.startswith((f"{key}:", f"{key}.")):
            return self
        full_key = f"{key}.{self.key}" if self.key else key
        error = InputError(f"{full_key}: {message.removeprefix(f'{self.key}: ')}")
        error.key = full_key
        return error


def close_matches(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name: similar choices, or all if there are none."""
    known = sorted(choices)
    if not known:
        return "there is none to choose"
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if similar:
        return "did you mean " + " or ".join(repr(choice) for choice in similar) + "?"
    return "choose one of " + ", ".join(repr(choice) for choice in known)


LONGEST_REASON = 200
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ADVICE = re.compile(r"weights_only|allow_pickle|trust|unsafe|file an issue|https?://", re.IGNORECASE)
"""What libraries advise for files that they refuse: to open them nevertheless."""


def reason(error: BaseException) -> str:
    """Return a library's exception as a reason in one short line, without its advice and its colour codes.

    That of an operating system's error is its text alone, without number and path. An exception that says nothing
    else gives its type.
    """
    text = getattr(error, "strerror", None) or str(error)
    line = " ".join(_COLOURS.sub("", str(text)).split())
    kept = [part for part in re.split(r"(?<=[.;!?])\s+", line) if not _ADVICE.search(part)]
    found = " ".join(kept).strip().rstrip(".;")
    found = "".join(letter if letter.isprintable() else "?" for letter in found)
    return f"{found[:LONGEST_REASON]}..." if len(found) > LONGEST_REASON else found or type(error).__name__
