"""YAML from outside: sound files are read as PyYAML reads them, mistakes are one line with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from attrib_core.common.errors import InputError
from attrib_core.storage import yaml_files

ROOT = Path(__file__).parents[2]
SOUND = {
    "": {},
    "# nothing\n": {},
    "\ufeffa: 1\r\nb: 2\r\n": {"a": 1, "b": 2},
    "%YAML 1.2\n---\na: 1\n...\n": {"a": 1},
    "a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}\n": {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2}},
    "base: &b {<<: {x: 0}, x: 1}\n<<: *b\n": {"base": {"x": 1}, "x": 1},
    "run: 2024-02-28\n": {"run": "2024-02-28"},
    'run: "2024-02-30"\n': {"run": "2024-02-30"},
    "a: [0, -0.5, 1_000, 0x1F, 1e-5, 08, 1.50, 10:20 am]\n": {
        "a": [0, -0.5, 1000, 31, "1e-5", "08", 1.5, "10:20 am"]
    },
    "a: '0777'\nb: '1:30'\n": {"a": "0777", "b": "1:30"},
    "a: [yes, no, ~, null]\n": {"a": [True, False, None, None]},
    "a: " + "[" * 45 + "]" * 45: None,
    'a: "🐱 \\u05e9 e\u0301"\n': {"a": "🐱 ש e\u0301"},
    "a: |\n  two\n  lines\n": {"a": "two\nlines\n"},
    '{"a": "\\ud83d\\ude00",\n\t"b": 1e-5, "c": {"d": [null, true]}}\n': {
        "a": "😀",
        "b": 1e-5,
        "c": {"d": [None, True]},
    },
}


@pytest.mark.parametrize("text", SOUND)
def test_sound_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode())
    assert yaml_files.read(path) == (yaml.safe_load(text) if SOUND[text] is None else SOUND[text])


@pytest.mark.parametrize("name", ["config.yaml", "config/base.yaml", "config/paper.yaml", "tests/tiny.yaml"])
def test_the_files_of_the_repository_are_read_as_by_pyyaml(name: str) -> None:
    values = yaml_files.read(ROOT / name)
    assert values == yaml.safe_load((ROOT / name).read_text("utf-8")) and "seed" in values


LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
WRONG = [
    ("run: 2024-02-30\n", "line 1: 2024-02-30 is no date; write it in quotes if it is a text"),
    ("seed: 1\nrun: 0000-00-00\n", "line 2: 0000-00-00 is no date"),
    ("seed: 1\npool: {}\nseed: 2\n", "line 3: duplicate key 'seed'"),
    ("a: {b: 1,\n b: 2}\n", "line 2: duplicate key 'b'"),
    ("1: a\n'1': b\n", "line 2: duplicate key '1'"),
    ('{"a": 1, "a": 2}', "duplicate key 'a'"),
    ("a: &x [*x]\n", "line 1: 'x' contains an alias of itself"),
    ("a: 1\nb: &x\n  c: *x\n", "line 3: 'x' contains an alias of itself"),
    ("a: *x\n", "line 1: found undefined alias 'x'"),
    (LAUGHS, "line 16: more than 100000 values"),
    ("[" * 5000, "line 1: more than 50 levels of nesting"),
    ('{"a": ' + "[" * 900 + "]" * 900 + "}", "more than 50 levels of nesting"),
    ("pool:\n\timages: 1\n", "line 2: while scanning for the next token found character '\\t'"),
    (
        "seed: 1\n---\nseed: 2\n",
        "line 2: expected a single document in the stream but found another document",
    ),
    ("run: !!python/object/apply:os.system [x]\n", "line 1: could not determine a constructor for the tag"),
    ("a: !mine 1\n", "line 1: could not determine a constructor for the tag '!mine'"),
    ("? {a: 1}\n: b\n", "line 1: while constructing a mapping found unhashable key"),
    ("a: 1:30\n", "line 1: 1:30 is 90 in YAML; write 90, or '1:30' in quotes if it is a text"),
    ("a: 1:30.5\n", "line 1: 1:30.5 is 90.5 in YAML"),
    ("a: [1,\n 0777]\n", "line 2: 0777 is 511 in YAML; write 511, or '0777' in quotes if it is a text"),
    ("a: !!int x\n", "line 1: x is no int"),
    ("a: !!bool x\n", "line 1: x is no bool"),
    ("a: !!timestamp x\n", "line 1: x is no date"),
    ("a: " + "9" * 5000, "line 1: " + "9" * 79 + "… is no int"),
    ('a: "\\ud83d"\n', "line 1: character 1 is half of an emoji (\\ud83d)"),
    ('{"a": "\\ud83d"}', "character 1 is half of an emoji (\\ud83d)"),
    ('a: "x\\0"\n', "line 1: character 2 is NUL"),
    ('a: "\\U00110000"\n', "chr() arg not in range(0x110000)"),
    ("a: 1\nb: \x07\n", "line 2: the character '\\x07'"),
    ("a: [1\n", "line 2: while parsing a flow sequence"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message[:50] for _, message in WRONG])
def test_mistakes_are_one_line_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        yaml_files.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: not readable as YAML: {message}"), said
    assert said.isprintable() and len(said) < 400


def test_what_is_no_mapping_or_no_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for content, message in [
        (b"- 1\n", "holds list, expected keys and values"),
        (b"text\n", "holds str, expected keys and values"),
        ("a: ü".encode("utf-16"), "saved as UTF-16; save it as UTF-8"),
        (b"a: caf\xe9\n", "not UTF-8 at byte 6 (0xe9)"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            yaml_files.read(path)
        assert str(caught.value).startswith(f"{path}: {message}")
    with pytest.raises(InputError, match=r"none\.yaml: no such recipe"):
        yaml_files.read(tmp_path / "none.yaml", expected="recipe")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("x", "x"), ("[1, a]", [1, "a"]), ("", None), ("2024-02-30", "2024-02-30"), ("1:30", "1:30"),
     ("{", "{"), ("/a/b: c", {"/a/b": "c"}), ("&x [*x]", "&x [*x]")],
)  # fmt: skip
def test_a_value_of_the_command_line_is_a_text_if_it_is_nothing_else(text: str, value: Any) -> None:
    assert yaml_files.value(text) == value


TEXT = "run: tiny\npool:\n  images: 12\n  source: {family: folder, path: 'a b'}\nencoders:\n  x: &e {size: [1, 2]}\n"
ODD = [
    "&a ", "*a", "*e", "<<: *e\n", "[", "]", "{", "}", ": ", ",", "- ", "\n", "\t", "---\n", "2024-02-30", "1:30",
    "0777",
    '"\\ud83d"', '"', "'", "!!int ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!python/name:os.system ", "? ",
    "%YAML 9.9\n", "%TAG ! x\n", "\x07", "\u2028", "\ufeff", ".nan", "9" * 5000, "~: 1\n", "|\n", ">-\n", "#", "=", "@",
    '"\\x"', '"\\U00110000"', "é🐱", "!!float x", "!!pairs [1]", "!", "\r", "!!map x", "!!seq x", "!!null {}",
]  # fmt: skip


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT)), st.integers(0, 4), st.sampled_from(ODD)), min_size=1, max_size=4
    )
)
def test_any_change_of_a_config_is_a_dictionary_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, str]]
) -> None:
    text = TEXT
    for place, removed, put in changes:
        text = text[:place] + put + text[place + removed :]
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_text(text, "utf-8", newline="")
    try:
        values = yaml_files.read(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable() and len(str(error)) < 400
    else:
        assert isinstance(values, dict)
