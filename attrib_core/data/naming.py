"""Names of things: as they stand in ids, and with the article that English gives them."""

from __future__ import annotations

import re
import unicodedata

SOUNDS_LIKE_A_VOWEL = ("hour", "honest", "heir", "x-ray")
SOUNDS_LIKE_A_CONSONANT = ("unic", "unif", "unio", "unit", "univ", "ufo", "use", "eu", "one ", "ukulele")


def slug(text: str) -> str:
    """Lower-case ASCII letters and digits with hyphens between: "Piñata, blue" is "pinata-blue".

    A text with none of these signs is "unnamed".
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "unnamed"


def article(noun: str) -> str:
    """ "a" or "an", by the sound that a word starts with: "an hourglass", "a unicorn", "an x-ray"."""
    if noun.startswith(SOUNDS_LIKE_A_VOWEL):
        return "an"
    if noun.startswith(SOUNDS_LIKE_A_CONSONANT):
        return "a"
    return "an" if noun[:1].lower() in "aeiou" else "a"
