"""What error messages say about failures of libraries and about long or unprintable values."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from attrib_core.common import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad magic"), "bad magic"),
        (ValueError(), "ValueError"),
        (KeyError("feats"), "'feats'"),
        (OSError(36, "File name too long", "x" * 300), "File name too long"),
        (OSError("no such codec"), "no such codec"),
        (RuntimeError("  two\n\tlines of \x1b[31mred\x1b[0m text:"), "two lines of red text"),
        (
            ValueError("This file contains pickled (object) data. If you trust it, use allow_pickle=True."),
            "This file contains pickled (object) data",
        ),
        (RuntimeError("Weights only load failed. In PyTorch 2.6, we changed"), "Weights only load failed"),
        (ValueError("version 1.2 of x.y.z is unknown."), "version 1.2 of x.y.z is unknown"),
    ],
)
def test_reason_is_the_first_sentence_in_one_line(error: BaseException, expected: str) -> None:
    assert errors.reason(error) == expected


def test_reason_of_a_json_error_keeps_its_place() -> None:
    with pytest.raises(ValueError) as caught:
        json.loads('{"a": }')
    assert errors.reason(caught.value) == "Expecting value: line 1 column 7 (char 6)"


def test_long_values_are_cut() -> None:
    assert errors.reason(ValueError("x" * 500)) == "x" * 199 + "…"
    assert errors.shown("ab") == "'ab'"
    assert errors.shown("a" * 500) == "'" + "a" * 78 + "…"
    assert errors.cut("a" * 80) == "a" * 80
    assert errors.cut("a" * 81, 80) == "a" * 79 + "…"


def test_what_cannot_be_printed_is_escaped(tmp_path: Path) -> None:
    on_disk = os.fsdecode(b"caf\xe9.png")
    assert errors.printable(on_disk) == r"caf\xe9.png"
    assert errors.printable("cat \ud83d") == r"cat \ud83d"
    assert errors.printable("a\x00b\x1b[2J\nc") == r"a\x00b\x1b[2J\nc"
    sound = "🐱\u200d👤 שלום e\u0301 \u202bRTL"
    assert errors.printable(sound) == sound
