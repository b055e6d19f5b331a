"""The error for wrong input, whose message is written for the user."""

from __future__ import annotations

import difflib
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
