"""The one error that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave is wrong: a key, a value, a file.

    The message is one line that names the key or file, the value, and what
    would be right. Command line and workflow print it without a traceback.
    """

    key = ""

    def under(self, key: str) -> InputError:
        """The error with the config key in front under which it arose.

        "weights: no file" becomes "parts.a: weights: no file", and one more call makes it
        "encoders.x.parts.a: weights: no file". A message that begins with the key stays.
        """
        message = str(self)
        if message.startswith((f"{key}:", f"{key}.")):
            return self
        whole = f"{key}.{self.key}" if self.key else key
        error = InputError(f"{whole}: {message.removeprefix(f'{self.key}: ')}")
        error.key = whole
        return error


def close_matches(name: str, choices: Iterable[str]) -> str:
    """The end of an error message: near names first, else all the choices."""
    known = sorted(choices)
    if not known:
        return "there is none to choose"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(choice) for choice in near) + "?"
    return "choose one of " + ", ".join(repr(choice) for choice in known)
