"""Families are found by file name and their options checked before anything heavy happens."""

from __future__ import annotations

import subprocess
import sys

import pytest

from attrib_core.common import families
from attrib_core.common.errors import InputError

SOURCE = '''
"""An encoder for tests."""
from __future__ import annotations
from typing import TYPE_CHECKING, Annotated
from pydantic import Field
if TYPE_CHECKING:
    from nowhere import Thing
CALLS = []
def load(*, size: Annotated[int, Field(ge=8)], scale: float = 1.0, shape: tuple[int, int] = (1, 2),
         note: str | None = None, device: str = "cpu") -> Thing:
    CALLS.append(size)
    return {"size": size, "scale": scale, "shape": shape, "note": note, "device": device}
'''


@pytest.fixture
def encoder(add_family):
    add_family("encoders", "invented", SOURCE)
    add_family("encoders", "_helper", "raise RuntimeError('no family')")


def test_names_are_the_files_without_underscore(encoder):
    found = families.names("encoders")
    assert "invented" in found
    assert found == sorted(found)
    assert not any(name.startswith("_") for name in found)


def test_unknown_kind_is_a_programming_error():
    with pytest.raises(KeyError, match="flavours.*encoders"):
        families.names("flavours")


def test_load_passes_options_and_only_the_context_that_it_names(encoder):
    loaded = families.load("encoders", "invented", {"size": 16}, device="cuda:1", seed=3)
    assert loaded == {"size": 16, "scale": 1.0, "shape": (1, 2), "note": None, "device": "cuda:1"}


def test_options_have_precedence_over_context(encoder):
    assert (
        families.load("encoders", "invented", {"size": 8, "device": "cpu"}, device="cuda")["device"] == "cpu"
    )


def test_unknown_context_is_a_programming_error(encoder):
    with pytest.raises(TypeError, match="colour"):
        families.load("encoders", "invented", {"size": 8}, colour="red")


def test_check_fills_defaults_converts_and_does_not_call_load(encoder):
    checked = families.check("encoders", "invented", {"size": 8, "scale": "1e-5", "shape": [3, 4]})
    assert checked == {"size": 8, "scale": 1e-5, "shape": (3, 4), "note": None}
    assert families.module("encoders", "invented").CALLS == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sise": 8}, ["encoders.mine.sise", "invented", "did you mean 'size'"]),
        ({}, ["encoders.mine.size", "missing"]),
        ({"size": 4}, ["encoders.mine.size", "4", "greater than or equal to 8"]),
        ({"size": "large"}, ["encoders.mine.size", "'large'", "integer"]),
        ({"size": True}, ["encoders.mine.size", "True", "integer"]),
        ({"size": 8, "scale": float("nan")}, ["encoders.mine.scale", "nan", "finite"]),
        ({"size": 8, "shape": [1]}, ["encoders.mine.shape"]),
    ],
)
def test_wrong_options_are_reported_in_one_line(encoder, options, words):
    with pytest.raises(InputError) as caught:
        families.check("encoders", "invented", options, "encoders.mine")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_load_checks_options_first(encoder):
    with pytest.raises(InputError, match="encoders.size: 1"):
        families.load("encoders", "invented", {"size": 1})
    assert families.module("encoders", "invented").CALLS == []


def test_unknown_family_gets_close_matches(encoder):
    with pytest.raises(
        InputError, match=r"encoders.x.family: no family 'inventedd', did you mean 'invented'\?"
    ):
        families.check("encoders", "inventedd", {}, "encoders.x")


@pytest.mark.parametrize("imported_at", ["top", "inside load"])
def test_a_package_that_is_not_installed_is_reported_in_one_line(add_family, imported_at):
    inside = "    import no_such_package.part\n"
    source = (
        "import no_such_package.part\ndef load(): pass\n"
        if imported_at == "top"
        else f"def load():\n{inside}"
    )
    add_family("encoders", "needy", source)
    with pytest.raises(InputError, match="encoders.x.*'needy' needs the package 'no_such_package'"):
        families.load("encoders", "needy", {}, where="encoders.x")


def test_a_missing_module_of_the_package_is_no_input_error(add_family):
    add_family("encoders", "broken", "import attrib_core.no_such_module\ndef load(): pass\n")
    with pytest.raises(ModuleNotFoundError):
        families.load("encoders", "broken", {})


def test_split_does_not_change_the_section():
    section = {"family": "timm", "size": 3}
    assert families.split(section) == ("timm", {"size": 3})
    assert section == {"family": "timm", "size": 3}


def test_no_family_imports_anything_heavy_before_load():
    program = (
        "import sys\n"
        "from attrib_core.common import families\n"
        "for kind in families.KINDS:\n"
        "    for name in families.names(kind):\n"
        "        families.parameters(kind, name)\n"
        "        heavy = {'torch', 'diffusers', 'transformers', 'timm', 'faiss', 'open_clip'} & set(sys.modules)\n"
        "        assert not heavy, (kind, name, heavy)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
