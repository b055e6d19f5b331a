"""Turn the name of a thing into a part of an id, and find its English article."""

from __future__ import annotations

import re
import unicodedata

SOUNDS_LIKE_A_VOWEL = ("hour", "honest", "heir", "x-ray")
SOUNDS_LIKE_A_CONSONANT = ("unic", "unif", "unio", "unit", "univ", "ufo", "use", "eu", "one ", "ukulele")


def slug(text: str) -> str:
    """Return lower-case ASCII letters and digits joined by hyphens: "Piñata, blue" becomes "pinata-blue".

    A text without any of these characters becomes "unnamed".
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "unnamed"


def article(noun: str) -> str:
    """Return "a" or "an" by the first sound of a word: "an hourglass", "a unicorn", "an x-ray"."""
    if noun.startswith(SOUNDS_LIKE_A_VOWEL):
        return "an"
    if noun.startswith(SOUNDS_LIKE_A_CONSONANT):
        return "a"
    return "an" if noun[:1].lower() in "aeiou" else "a"
