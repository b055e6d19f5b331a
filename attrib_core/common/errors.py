"""The error for wrong input, whose message is written for the user."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

LONGEST_REASON = 200
LONGEST_VALUE = 80
LONGEST_PATH = 300
"""Characters of a path in a message, of which the end says most."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ADVICE = re.compile(r"weights_only|allow_pickle|trust|unsafe|file an issue|https?://", re.IGNORECASE)
"""What libraries advise for files that they refuse: to open them nevertheless."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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


def reason(error: BaseException) -> str:
    """Return why a library failed, for an error message: its first sentence in one line, at most 200 characters.

    What follows the first sentence is advice or detail, which is seldom right for the user; advice to open a file
    unsafely is passed over. An error of the system is said without its number and path.
    """
    text = (error.strerror or "") if isinstance(error, OSError) and error.errno else str(error)
    line = " ".join(_COLOURS.sub("", text).split())
    sentences = (part for part in re.split(r"[.!?;] ", line) if not _ADVICE.search(part))
    sentence = next(sentences, "")
    return cut(printable(sentence.rstrip(" .:")), LONGEST_REASON) or type(error).__name__


def shown(value: Any, length: int = LONGEST_VALUE) -> str:
    """Return a value as an error message shows it: its `repr`, cut to a length; it escapes what cannot be printed."""
    try:
        return cut(repr(value), length)
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of thousands of digits"


def shown_path(path: object) -> str:
    """Return a path as an error message shows it: in quotes, unprintable characters escaped, cut to 300 characters."""
    return f"'{cut(printable(str(path)), LONGEST_PATH)}'"


def cut(text: str, length: int = LONGEST_VALUE) -> str:
    """Return a text of at most `length` characters, a longer one with an ellipsis at its end."""
    return text if len(text) <= length else text[: length - 1] + "…"


def printable(text: str) -> str:
    """Return a text that can be printed and stored: control characters, ends of lines and lone surrogates are escaped.

    A byte of a file name that is not UTF-8 is in Python a surrogate, and becomes "\\xe9".
    """
    return "".join(map(_escaped, text)) if _UNPRINTABLE.search(text) else text


def _escaped(character: str) -> str:
    if not _UNPRINTABLE.match(character):
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
