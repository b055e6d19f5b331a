"""Text files from outside: sound ones are read as they are, what is no UTF-8 text is named in one line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attrib_core.common.errors import InputError
from attrib_core.storage import tables, text_files

SOUND = {
    "empty": (b"", ""),
    "byte order mark": (b"\xef\xbb\xbfa cat\n", "a cat\n"),
    "line ends of Windows": (b"a\r\nb\r\n", "a\r\nb\r\n"),
    "old line ends of the Mac": (b"a\rb", "a\rb"),
    "emoji": ("🐱\u200d👤".encode(), "🐱\u200d👤"),
    "right to left": ("שלום \u202bאב\u202c".encode(), "שלום \u202bאב\u202c"),
    "combining letters": ("e\u0301".encode(), "e\u0301"),
    "tabs and controls": (b"a\tb\x0c\x1b", "a\tb\x0c\x1b"),
    "less-than signs": (b"<3 html < css", "<3 html < css"),
    "beginnings of other files": (b"PARENT,BZh,GIF8", "PARENT,BZh,GIF8"),
}
OTHER = {
    "UTF-16": ("naïve".encode("utf-16"), "saved as UTF-16; save it as UTF-8"),
    "UTF-16, big end": (b"\xfe\xff\0a", "saved as UTF-16; save it as UTF-8"),
    "UTF-32": ("a".encode("utf-32"), "saved as UTF-32; save it as UTF-8"),
    "UTF-16 without a mark": ("ab".encode("utf-16-le"), "byte 1 is NUL"),
    "cp1252": (b"grandma\x92s", "not UTF-8 at byte 7 (0x92), perhaps Windows-1252; save it as UTF-8"),
    "Latin-1 behind a mark": (b"\xef\xbb\xbfcaf\xe9", "not UTF-8 at byte 6 (0xe9)"),
    "cut in a letter": (b"caf\xc3", "not UTF-8 at byte 3 (0xc3)"),
    "surrogates": (b"a \xed\xa0\xbd", "not UTF-8 at byte 2 (0xed)"),
    "NUL": (b"a\0b", "byte 1 is NUL"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer: "),
    "HTML": (b"\n<!DOCTYPE html>\n<html>", "is an HTML page"),
    "Excel": (b"PK\x03\x04\x14\0", "is a zip archive, as .xlsx files are; expected text in UTF-8"),
    "Parquet": (b"PAR1\x15\x04", "is a Parquet file; expected text in UTF-8"),
    "gzip": (b"\x1f\x8b\x08", "is a gzip file, to be unpacked first"),
}


@pytest.mark.parametrize(("content", "text"), SOUND.values(), ids=SOUND)
def test_sound_texts(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert text_files.read(path) == text == text_files.decode(content, "x")
    text_files.check(path)


@pytest.mark.parametrize(("content", "message"), OTHER.values(), ids=OTHER)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    for reads in (text_files.read, text_files.check):
        with pytest.raises(InputError) as caught:
            reads(path)
        assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_wrong_byte_is_found_at_its_place_in_a_long_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Also next to a letter that is cut by the end of a block."""
    monkeypatch.setattr(text_files, "BLOCK", 4)
    path = tmp_path / "a.txt"
    content = b"abcdefgh"[:before] + "é🐱é".encode() * 5
    path.write_bytes(content)
    text_files.check(path)
    path.write_bytes(content + b"\xe9" + content)
    with pytest.raises(InputError, match=rf"not UTF-8 at byte {len(content)} \(0xe9\)"):
        text_files.check(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(InputError, match=f"byte {len(content)} is NUL"):
        text_files.check(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    def said(path: Path, **options: int) -> str:
        with pytest.raises(InputError) as caught:
            text_files.read(path, expected="list", **options)
        return str(caught.value)

    assert said(tmp_path / "no") == f"{tmp_path}/no: no such list"
    assert said(tmp_path) == f"{tmp_path}: Is a directory; expected a list"
    assert "no such list" in said(tmp_path / "a\0b") and "\0" not in said(tmp_path / "a\0b")
    assert said(Path("x" * 300)).endswith(": File name too long; expected a list")
    (tmp_path / "long").write_text("x" * 11)
    assert said(tmp_path / "long", limit=10) == f"{tmp_path}/long: longer than 10 bytes, expected a list"
    assert text_files.read(tmp_path / "long", limit=11) == "x" * 11
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe that nothing is written to" in said(tmp_path / "pipe")
    assert text_files.read(Path(os.devnull)) == ""


def test_a_pipe_with_a_writer_is_read(tmp_path: Path) -> None:
    """As `--list <(find ...)` of a shell gives it."""
    ends = os.pipe()
    threading.Timer(0.05, lambda: (os.write(ends[1], "é".encode()), os.close(ends[1]))).start()
    assert text_files.read(Path(f"/dev/fd/{ends[0]}")) == "é"
    os.close(ends[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["\\ud83d"]', r"'\ud83d': character 1 is half of an emoji (\ud83d)"),
        ('{"a": {"b\\udc00c": 1}}', r"'b\udc00c': character 2 is half of an emoji (\udc00)"),
        ('["a\\u0000"]', r"'a\x00': character 2 is NUL"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "Exceeds the limit"),
        ('[{"a": 1, "b": 2, "a": 1}]', "duplicate key 'a'"),
        ('{"a": {"\\u0062\\n": 1, "b\\n": 2}}', r"duplicate key 'b\n'"),
        ("[1", "Expecting ',' delimiter: line 1 column 3 (char 2)"),
    ],
)
def test_json_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        tables.read_json(path)
    assert str(caught.value).startswith(f"{path}: not a readable JSON file: {message}")


def test_one_key_in_several_objects_is_right(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1, "A": 2, "": 3}, {"a": {"a": []}}]')
    assert tables.read_json(path) == [{"a": 1, "A": 2, "": 3}, {"a": {"a": []}}]


def test_json_with_an_emoji_in_two_escapes_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}')
    assert tables.read_json(path) == {"a": "😀"}


def test_paths_in_utf8() -> None:
    text_files.check_path(Path("é 🐱/a\nb"), where="--out: ")
    with pytest.raises(InputError) as caught:
        text_files.check_path(Path(os.fsdecode(b"a/caf\xe9")), where="--out: ")
    assert str(caught.value) == (
        r"--out: a/caf\xe9: character 6 is a byte that is not UTF-8 (\xe9); expected a name in UTF-8"
    )


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
    ),
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"PK\x03\x04", b"<html>", b"a\r\n"]),
)
def test_any_bytes_are_their_text_or_an_error(content: bytes, before: bytes) -> None:
    data = before + content
    try:
        text = text_files.decode(data, "here")
    except InputError as error:
        assert str(error).startswith("here: ") and str(error).isprintable()
    else:
        assert text.encode() == data.removeprefix(b"\xef\xbb\xbf")
        text_files.check_characters(text)
