"""Loading turns off the progress bars and warnings of the libraries for a while, and leaves them as they were."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import utils as hub
from transformers.utils import logging as transformers_logging

from attrib_core.diffusion.pipeline import networks

LIBRARIES = diffusers_logging, transformers_logging


def shown() -> list[object]:
    """What the libraries show: progress bars and warnings of each, and the bars of downloads."""
    levels = [(one.is_progress_bar_enabled(), one.get_verbosity()) for one in LIBRARIES]
    return [*levels, not hub.are_progress_bars_disabled()]


def show(diffusers: bool, transformers: bool, downloads: bool) -> None:
    for one, bars in zip(LIBRARIES, (diffusers, transformers), strict=True):
        (one.enable_progress_bar if bars else one.disable_progress_bar)()
    (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    bars = [one.is_progress_bar_enabled() for one in LIBRARIES]
    downloads = not hub.are_progress_bars_disabled()
    yield
    show(bars[0], bars[1], downloads)


@pytest.mark.parametrize("bars", list(itertools.product([True, False], repeat=3)), ids=str)
@pytest.mark.parametrize("fails", [True, False])
def test_progress_bars_and_warnings_are_as_before(bars: tuple[bool, bool, bool], fails: bool) -> None:
    show(*bars)
    before = shown()
    try:
        with networks.quiet():
            assert shown() == [(False, one.ERROR) for one in LIBRARIES] + [False]
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert shown() == before and [before[0][0], before[1][0], before[2]] == list(bars)  # type: ignore[index]
