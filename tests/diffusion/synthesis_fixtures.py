"""Sets and options of the tests of the stage `synthesize`."""

from __future__ import annotations

from typing import Any

from tests.diffusion import diffusion_fixtures as fixtures

SETS = fixtures.exemplar_sets()[2:]

OPTIONS: dict[str, Any] = {
    "steps": 3,
    "guidance": 3.0,
    "batch": 5,
    "image_format": "png",
    "quality": 90,
    "samples_each": 2,
    "control_samples_each": 2,
}
