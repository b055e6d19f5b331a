"""Paths that `abc embed` is given, in lists, JSON and folders: below the folder, each image once."""

from __future__ import annotations

import json
import os
import re

import pytest

from attrib_core.cli.main import main
from tests.abc_benchmark.test_embed import embed_pool, write_pool


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("z.png\nno.png\n", "line 2: no file .*no.png; expected --pool"),
        ("z.png\n\nz.png\n", "line 3: 'z.png' is also in line 1"),
        ("/z.png\n", "line 1: '/z.png' is absolute"),
        ("\n", "names 0 images"),
        ("\rz.png\r00000/../z.png\r", "line 3: '00000/../z.png' is also in line 2 as 'z.png'"),
        ("link.png\nz.png\n", "line 2: 'z.png' is also in line 1 as 'link.png'"),
        ("../secret.png\n", "line 1: '../secret.png' leads out of the folder"),
        ("z.png\n" + "x" * 300 + ".png\n", "line 2: no such file: the name is 304 bytes long"),
        ("z\0.png\n", "--list: .*list.txt: byte 1 is NUL"),
        ("folder.png\n", "line 1: no file .*folder.png"),
        (None, "--list: .*list.txt: no such list of images"),
    ],
)
def test_bad_lists_are_refused_with_their_line(tmp_path, capsys, text, words):
    listed, out = tmp_path / "list.txt", tmp_path / "x.pth"
    if text is not None:
        listed.write_text(text)
    folder = write_pool(tmp_path / "laion")
    (tmp_path / "secret.png").write_bytes((folder / "z.png").read_bytes())
    (folder / "link.png").symlink_to("z.png")
    (folder / "folder.png").mkdir()
    assert embed_pool(folder, out, "--list", str(listed)) == 2
    assert re.search(words, capsys.readouterr().err.splitlines()[-1]) and not out.exists()


def test_a_name_that_is_not_utf8_is_refused_with_the_name_escaped(tmp_path, capsys):
    folder = write_pool(tmp_path / "laion")
    (folder / "z.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    assert embed_pool(folder, tmp_path / "x.pth") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        r"'caf\xe9.png': character 4 is a byte that is not UTF-8" in error
        and not (tmp_path / "x.pth").exists()
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{images}/e.png", "is absolute, expected a path relative to the folder"),
        ("../e.png", "'../e.png' leads out of the folder"),
        ("e" * 300, "no such file: the name is 300 bytes long"),
        ("e\0", r"'e\x00': character 2 is NUL"),
    ],
)
def test_paths_of_a_test_case_are_below_its_images(tmp_path, capsys, name, words):
    testcase = tmp_path / "case.json"
    name = name.format(images=tmp_path)
    testcase.write_text(json.dumps([{"exemplar": [name], "synth": {"k": ["a.png"]}}]))
    given = ["--testcase", str(testcase), "--images", str(tmp_path), "--encoder", "pixel"]
    assert main(["abc", "embed", *given, "--out", str(tmp_path / "x.pth")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1 and error.startswith(f"error: {testcase}: ")
