"""Paths relative to a folder: below it, of regular files, each file once."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attrib_core.common.errors import InputError
from attrib_core.storage import relative_paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, folders, links to both within and without, a pipe, and odd names."""
    root = tmp_path_factory.mktemp("paths")
    outside, inside = root / "outside", root / "images"
    for one in (outside, inside / "sub" / "deep", inside / "folder.png"):
        one.mkdir(parents=True)
    for path in (outside / "x.png", inside / "a.png", inside / "sub" / "b.png", inside / "sub" / "a.png"):
        path.write_text(path.relative_to(root).as_posix())
    for name in (
        "with space.png",
        "é🐱.png",
        "new\nline.png",
        "..two.png",
        "back\\slash.png",
        "x" * 251 + ".png",
    ):
        (inside / name).write_text("odd")
    (inside / "linked.png").symlink_to("a.png")
    (inside / "again.png").symlink_to("linked.png")
    (inside / "far.png").symlink_to(outside / "x.png")
    (inside / "far").symlink_to(outside)
    (inside / "near").symlink_to("sub")
    (inside / "broken.png").symlink_to("none.png")
    (inside / "loop.png").symlink_to("loop.png")
    os.link(inside / "a.png", inside / "hard.png")
    os.mkfifo(inside / "pipe.png")
    return inside


def said(name: str, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        relative_paths.check(name, folder)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "a.png", "./a.png", "sub/../a.png", "sub//b.png", "near/b.png", "near/../a.png", "../images/a.png", "far.png",
        "far/x.png", "none.png", "with space.png", "é🐱.png", "new\nline.png", "..two.png",
        "back\\slash.png", "x" * 251 + ".png", "https://a.b/c.png",
    ],
)  # fmt: skip
def test_paths_below_the_folder_are_right(folder: Path, name: str) -> None:
    """A link of the folder's owner may lead elsewhere; `..` may, if it stays below the folder."""
    relative_paths.check(name, folder)
    assert relative_paths.check_all(pa.chunked_array([["a.png", name]]), folder) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no file is named"),
        ("/etc/passwd", "'/etc/passwd' is absolute, expected a path relative to the folder"),
        ("../outside/x.png", "'../outside/x.png' leads out of the folder"),
        ("sub/../../outside/x.png", "leads out of the folder"),
        ("far/../outside/x.png", "leads out of the folder"),
        ("far/../far/x.png", "leads out of the folder"),
        ("..", "leads out of the folder"),
        ("a.png/", "'a.png/' names a folder, expected a file"),
        ("sub/a.png//", "'sub/a.png//' names a folder, expected a file"),
        ("a.png/.", "'a.png/.' names a folder, expected a file"),
        (".", "'.' names a folder, expected a file"),
        ("x" * 252 + ".png", "no such file: the name is 256 bytes long, at most 255 are possible"),
        ("é" * 130, "no such file: the name is 260 bytes long"),
        ("sub/" * 1100 + "a.png", "no such file: the path is "),
    ],
)
def test_paths_that_lead_out_or_are_too_long(folder: Path, name: str, message: str) -> None:
    assert message in said(name, folder)
    assert relative_paths.check_all(pa.chunked_array([["a.png"], [name]]), folder) == {1: said(name, folder)}


def test_characters_that_no_table_can_store(folder: Path) -> None:
    assert said(os.fsdecode(b"caf\xe9.png"), folder) == (
        r"'caf\xe9.png': character 4 is a byte that is not UTF-8 (\xe9)"
    )
    assert said("a\0b", folder) == r"'a\x00b': character 2 is NUL"
    assert said("a\ud83d", folder) == r"'a\ud83d': character 2 is half of an emoji (\ud83d)"


def test_names_of_one_file(folder: Path) -> None:
    names = [
        "a.png", "sub/b.png", "./a.png", "sub/../a.png", "linked.png", "again.png", "near/b.png", "near/../a.png",
        "hard.png", "sub/a.png", "a.png", "none.png", "far.png", "far/x.png", "loop.png", "broken.png", "sub//b.png",
    ]  # fmt: skip
    found = relative_paths.same_files(pa.chunked_array([names[:5], names[5:]]), folder)
    assert found == {2: 0, 3: 0, 4: 0, 5: 0, 6: 1, 7: 0, 10: 0, 13: 12, 15: 11, 16: 1}
    assert relative_paths.same_files(pa.chunked_array([names]), folder, but={0, 2})[4] == 3
    different = ["a.png", "sub/b.png", "sub/a.png", "far/x.png", "none.png", "sub/none.png"]
    assert relative_paths.same_files(pa.chunked_array([different]), folder) == {}
    assert relative_paths.same_files(pa.chunked_array([], pa.string()), folder) == {}


def test_only_regular_files_are_read(folder: Path) -> None:
    def reads(name: str) -> str:
        with pytest.raises(InputError) as caught:
            relative_paths.read_file(folder / name, name)
        return str(caught.value)

    assert relative_paths.read_file(folder / "far.png", "x") == b"outside/x.png"
    assert reads("none.png") == "no file none.png" == reads("none.png")
    assert reads("broken.png") == "no file broken.png"
    assert reads("a.png/b.png") == "no file a.png/b.png"
    assert reads("folder.png") == "folder.png is a folder, expected a file"
    assert reads("pipe.png") == "pipe.png is a pipe or device, expected a file"
    assert reads("loop.png") == "loop.png: Too many levels of symbolic links"
    assert reads("x" * 300).endswith(": File name too long")
    assert reads("a\0b").startswith(r"no file a\x00b")
    assert reads("a\ud83d").startswith(r"no file a\ud83d")
    with pytest.raises(InputError, match="is a pipe or device"):
        relative_paths.read_file(Path("/dev/zero"), "zero")


PARTS = [
    "a.png",
    "b.png",
    "sub",
    "near",
    "far",
    "..",
    ".",
    "",
    "\0",
    "\ud83d",
    "\udce9",
    "é",
    "x" * 300,
    "loop.png",
]


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PARTS), max_size=6).map("/".join))
def test_any_path_stays_below_or_is_an_error(folder: Path, name: str) -> None:
    """`far` is the only link that leads out."""
    try:
        relative_paths.check(name, folder)
    except InputError as error:
        assert str(error).isprintable()
    else:
        roots = [str(folder), str(folder.parent / "outside")]
        real = os.path.realpath(folder / name)
        assert real.startswith(roots[0]) or "far" in name.split("/") and real.startswith(roots[1])
        assert set(relative_paths.same_files(pa.chunked_array([["a.png", name]]), folder)) <= {1}
    try:
        assert relative_paths.read_file(folder / name, name)
    except InputError as error:
        assert str(error).isprintable()
