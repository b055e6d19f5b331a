"""The command line: its output and exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attrib_core.cli.main import main
from attrib_core.config.documentation import documents
from attrib_core.config.schema import Config
from attrib_core.storage import tables

ROOT = Path(__file__).parents[2]


def test_check_summarizes_the_config(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("config.yaml: fine\n")
    for words in (
        "results/demo",
        "2992 images of source 'openmoji'",
        "64 sets (48 of objects, 16 of styles)",
    ):
        assert words in out
    assert "1024 images" in out  # (48 + 16) sets x 2 prompt kinds x 4 prompts x 2 samples


def test_a_mistake_is_one_line_and_status_2(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("pool: {imagess: 4}\n")
    done = subprocess.run(
        [sys.executable, "-m", "attrib_core", "check", "--config", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"error: {path}: pool.imagess: no such key (value 4), did you mean 'images'?\n"


def test_check_says_what_becomes_of_the_table_of_a_folder_and_prints_any_name(tmp_path):
    """With a config whose name is not UTF-8, and a terminal without Unicode."""
    images = tmp_path / "images"
    images.mkdir()
    rows = [f"{number}.png,café {number},cup" for number in range(6)]
    table = "file,subject,category,width\n" + "\n".join(row + ",5" for row in rows) + '\n7.png,"x,cup,5\n'
    (images / "m.csv").write_text(table, "utf-8")
    source = f"{{family: folder, path: {images}, metadata: {images}/m.csv, licence: x, attribution: y}}"
    config = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.yaml")
    Path(config).write_text(
        f"pool: {{images: 7, source: {source}}}\nexemplars: {{object_sets: 6, style_sets: 0, unseen_categories: []}}\n"
        "mapper: {trained_on: [object]}\nencoders: {a: {family: pixel}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "attrib_core", "check", "--config", config],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    out = done.stdout.decode("ascii")
    assert (done.returncode, done.stderr) == (0, b"") and r"caf\udce9.yaml: fine" in out
    assert (
        "warning: pool.source: 1 of 7 rows become rejects, the first: row: line 8: a quote is not closed"
        in out
    )
    assert "warning: pool.source: columns of the table that are not read: width" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{encoders: {a: {family: timm, architecture: tf_efficientnet_lite9, weights: x}}}",
            "'tf_efficientnet_lite4'",
        ),
        (
            "{encoders: {a: {family: timm, architecture: tf_efficientnet_lite0, weights: /nope.safetensors}}}",
            "encoders.a: weights: no file '/nope.safetensors'",
        ),
        (
            "{index: {factory: Foo}}",
            "index.factory: 'Foo' is no index that FAISS builds for the 768 features",
        ),
        ("{base_model: {family: folder, path: /nope}}", "base_model: /nope/model_index.json: no such file"),
    ],
)
def test_check_reports_what_cannot_be_opened(tmp_path, capsys, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["check", "--config", str(path)]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and shown.out == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "exemplars: {splits: {train: 0.8, validation: 0.0, test: 0.2}}",
            "validation 0 sets for mapper.trained_on 'object', which needs 2 and 1 or more; raise the share of"
            " validation",
        ),
        (
            "exemplars: {style_sets: 3, splits: {train: 0.4, validation: 0.3, test: 0.3}}",
            "train has 1 and validation 1 sets for mapper.trained_on 'style', which needs 2 and 1 or more;"
            " raise the share of train or exemplars.style_sets",
        ),
        (
            "exemplars: {object_sets: 1, style_sets: 0}\nmapper: {trained_on: [both]}",
            "raise the share of train and validation or exemplars.object_sets or exemplars.style_sets",
        ),
        ("exemplars: {style_sets: 3}\nmapper: {trained_on: [both]}", None),
    ],
)
def test_splits_too_small_for_tuning_are_an_error(tmp_path, capsys, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["check", "--config", str(path)]) == (2 if message else 0)
    shown = capsys.readouterr()
    if message:
        assert shown.err.startswith(f"error: {path}: exemplars.splits: train has ") and message in shown.err


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (
            "exemplars: {splits: {train: 0.8, validation: 0.2, test: 0.0}}",
            ["48 object sets", "16 style sets"],
        ),
        ("exemplars: {style_sets: 1}\nmapper: {trained_on: [both]}", ["1 style sets"]),
        ("exemplars: {style_sets: 0}\nmapper: {trained_on: [object]}", []),
    ],
)
def test_check_warns_about_kinds_without_test_sets(tmp_path, capsys, text, warned):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["check", "--config", str(path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning: exemplars.splits" in line]
    assert [line.split("none of ")[1].split(",")[0] for line in lines] == warned


def test_shares_that_do_not_sum_to_1_are_an_error(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("exemplars: {splits: {train: 0.3333333, validation: 0.3333333, test: 0.3333333}}")
    assert main(["check", "--config", str(path)]) == 2
    assert "must sum to 1" in capsys.readouterr().err


def test_the_generated_pages_are_fresh(capsys):
    assert main(["docs", "--check", "--root", str(ROOT)]) == 0, capsys.readouterr().out


def test_stale_pages_are_shown_and_updated(tmp_path, capsys):
    assert main(["docs", "--root", str(tmp_path)]) == 0
    assert main(["docs", "--root", str(tmp_path), "--check"]) == 0
    page = tmp_path / "docs" / "config.md"
    page.write_text(page.read_text().replace("name of the run", "title of the run"))
    capsys.readouterr()
    assert main(["docs", "--root", str(tmp_path), "--check"]) == 1
    shown = capsys.readouterr()
    assert "-| `run` | string | `demo` | title of the run" in shown.out
    assert "+| `run` | string | `demo` | name of the run" in shown.out
    assert "stale" in shown.err
    assert "title of the run" in page.read_text()
    assert main(["docs", "--root", str(tmp_path)]) == 0
    assert "title of the run" not in page.read_text()


def test_pages_name_every_key_column_and_family():
    pages = documents()
    config, data = pages["docs/config.md"], pages["docs/data.md"]
    for section, field in Config.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {})
        for name in keys if field.annotation.__name__ != "Family" else []:
            assert f"`{section}.{name}" in config
    for word in ("#### `openmoji`", "#### `pixel`", "`exemplars.splits.train`", "at least 0, at most 1"):
        assert word in config
    for name, schema in tables.SCHEMAS.items():
        assert f"## `{name}`" in data
        for field in schema:
            assert f"| `{field.name}` |" in data
    assert "string or null" in data and "| pixel |" in data


def test_pages_are_the_same_on_every_run():
    assert documents() == documents()


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["check", "--nothing"]])
def test_wrong_commands_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
