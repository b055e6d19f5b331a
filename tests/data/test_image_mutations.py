"""Whatever bytes are called an image, decoding ends in an image or in one line, and starts no program."""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attrib_core.common.errors import InputError
from attrib_core.data import images, pool
from tests.data.test_pool import row

FUZZ = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/fuzz_images.py"), run_name="benchmark")
KINDS = [*images.FORMATS, *FUZZ["REFUSED"]]
STARTED: list[str] = []
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["change", "insert", "remove", "copy", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=6,
)


@functools.cache
def sound(kind: str) -> list[bytes]:
    """The sound files of a format."""
    found: list[bytes] = FUZZ["seeds"](kind)
    return found


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """A file after edits, each at a place of 0 (beginning) to 1 (end)."""
    changed = bytearray(data)
    for action, place, some in edits:
        start = int(place * len(changed))
        stop = start + len(some)
        if action == "change":
            changed[start:stop] = some
        elif action == "insert":
            changed[start:start] = some
        elif action == "remove":
            del changed[start:stop]
        elif action == "copy":
            changed[start:stop] = changed[some[0] : some[0] + len(some)]
        else:
            del changed[max(start, 1) :]
    return bytes(changed)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file of some format after edits, most of them with the checksums of PNG made right."""
    files = sound(draw(st.sampled_from(KINDS)))
    data = edited(draw(st.sampled_from(files)), draw(EDITS))
    return bytes(FUZZ["with_checksums"](data)) if draw(st.integers(0, 3)) else data


def watch(event: str, _: Any) -> None:
    """Note programs that are started; an audit hook cannot be taken away, so there is one for all examples."""
    if event.startswith(FUZZ["STARTS"]):
        STARTED.append(event)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fake programs in PATH, and where they would leave a mark."""
    mark: Path = FUZZ["_fake_programs"](tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if not STARTED:
        sys.addaudithook(watch)
    STARTED.clear()
    return mark


@settings(
    max_examples=2000,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=damaged())
def test_damaged_files_of_all_formats(data: bytes, programs: Path) -> None:
    try:
        image = images.decode(data, where="some image").image
    except InputError as error:
        message = str(error)
        assert message.startswith("some image: ") and "\n" not in message and len(message) < 250
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    assert not STARTED and not programs.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_sound_files_are_read_and_other_formats_refused_by_name(kind: str, programs: Path) -> None:
    files = sound(kind)
    assert files
    for data in files:
        if kind in images.FORMATS:
            assert images.to_rgb(data, where="x").shape in ((16, 20, 3), (20, 16, 3))
        else:
            with pytest.raises(
                InputError, match="^x: .* bytes are no image that can be read(, but .*)?; exp"
            ):
                images.to_rgb(data, where="x")
    assert not STARTED and not programs.exists()


@settings(max_examples=40, derandomize=True, deadline=None)
@given(files=st.lists(st.one_of(damaged(), st.none(), st.binary(max_size=9)), max_size=12))
def test_every_row_of_a_source_is_in_the_pool_or_rejected(files: list[bytes | None]) -> None:
    names = [str(number % 9) for number in range(len(files))]  # some ids twice
    made = list(pool.build([row(*one) for one in zip(names, files, strict=True)], min_side=8))
    assert [value["image_id"] for _, value in made] == names
    assert {table for table, _ in made} <= {"pool", "rejects"}
    reasons = [value["reason"] for table, value in made if table == "rejects"]
    known = ("undecodable: ", "too small: ", "blank: ", "unreadable: ", "duplicate id")
    assert all(reason.startswith(known) and "\n" not in reason for reason in reasons)
