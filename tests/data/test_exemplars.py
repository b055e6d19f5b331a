"""Drawing exemplar sets: which are drawn, what stays the same for other options, errors and warnings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib_core.common.errors import InputError
from attrib_core.data import prompts
from attrib_core.data.exemplars import exclusion, plan, sampling
from attrib_core.storage import tables
from tests.data.exemplars_fixtures import (
    CATEGORIES,
    HELD_OUT,
    SETTINGS,
    make_plan,
    pool_row,
    pool_rows,
    sets_of,
    write_pool,
)

ROOT = Path(__file__).parents[2]


def test_plan_has_the_requested_sets(parts: list[Path]) -> None:
    result = make_plan(parts)
    sets = sets_of(result)
    objects = [rows for rows in sets.values() if rows[0]["kind"] == "object"]
    styles = [rows for rows in sets.values() if rows[0]["kind"] == "style"]
    assert (len(objects), len(styles)) == (12, 3)
    assert [rows[0]["kind"] for rows in sets.values()] == ["object"] * 12 + ["style"] * 3
    assert all(len(rows) == 1 for rows in objects)
    assert len({rows[0]["subject"] for rows in objects}) == 12
    for rows in objects:
        assert rows[0]["subject"] in HELD_OUT["subjects"] and rows[0]["style"] is None
        assert rows[0]["image_id"] == f"{rows[0]['subject']}.plain"
    assert Counter(rows[0]["category"] for rows in objects) == dict.fromkeys(CATEGORIES, 2)
    for rows in styles:
        assert 2 <= len(rows) <= 4
        assert len({row["subject"] for row in rows}) == len(rows)
        assert len({row["style"] for row in rows}) == 1 and rows[0]["category"] == "art"
    assert len({rows[0]["style"] for rows in styles}) == 3
    for name, rows in sets.items():
        assert [row["exemplar_id"] for row in rows] == [f"{name}.{place}" for place in range(len(rows))]
        assert len({row["split"] for row in rows}) == len({row["seen"] for row in rows}) == 1
    for row in result.exemplars:
        assert row["image"]["bytes"] == row["image_id"].encode()
    assert list(sets)[0].startswith("object-000-") and list(sets)[-1].startswith("style-002-")
    tables.from_rows(result.exemplars, tables.schema("exemplars"))
    tables.from_rows(result.excluded, tables.schema("excluded"))
    assert result.warnings == []


def test_plan_does_not_depend_on_parts_batches_or_order(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_plan(parts)
    rows = pool_rows()
    assert make_plan(write_pool(tmp_path, rows, 7)) == first
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    shuffled = make_plan(write_pool(tmp_path, rows, 50))
    assert shuffled.exemplars == first.exemplars
    assert sorted(row["image_id"] for row in shuffled.excluded) == sorted(
        row["image_id"] for row in first.excluded
    )
    monkeypatch.setattr(plan, "ROWS_PER_BATCH", 5)
    monkeypatch.setattr(plan, "IMAGES_PER_BATCH", 3)
    monkeypatch.setattr(exclusion, "BLOCK", 2)
    assert make_plan(parts) == first


def test_more_sets_keep_the_earlier_ones(parts: list[Path]) -> None:
    large = sets_of(make_plan(parts, object_sets=24, style_sets=4))
    for objects, styles in ((3, 1), (12, 3), (23, 2)):
        small = sets_of(make_plan(parts, object_sets=objects, style_sets=styles))
        assert set(small) <= set(large)
        for name, rows in small.items():
            assert [row["image_id"] for row in rows] == [row["image_id"] for row in large[name]]
    names = [name for name in large if name.startswith("object")]
    assert [int(name.split("-")[1]) for name in names] == list(range(24))


def test_another_seed_draws_other_exemplars(parts: list[Path]) -> None:
    assert {row["image_id"] for row in make_plan(parts).exemplars} != {
        row["image_id"] for row in make_plan(parts, seed=12).exemplars
    }


@pytest.mark.parametrize(
    ("changes", "parts_of_message"),
    [
        ({"object_sets": 25}, ["exemplars.object_sets: 25", "24 different subjects"]),
        ({"style_sets": 5}, ["exemplars.style_sets: 5", "only 4 styles"]),
        ({"style_set_size": [6, 8]}, ["exemplars.style_sets: 3", "only 0 styles", "6 different objects"]),
        ({"style_set_size": [4, 2]}, ["exemplars.style_set_size: [4, 2]"]),
        ({"unseen_categories": ["brid"]}, ["exemplars.unseen_categories: 'brid'", "did you mean 'bird'"]),
        (
            {"unseen_categories": ["bird", "drink", "toy"]},
            ["exemplars.splits.test: 0.3 of 12", "makes 4", "6 sets are of exemplars.unseen_categories"],
        ),
        ({"object_sets": 0, "style_sets": 0}, ["exemplars.object_sets"]),
        ({"near_duplicate_distance": 64}, ["pool.images: the pool has 92 images"]),
    ],
)
def test_errors_name_key_and_numbers(
    parts: list[Path], changes: dict[str, Any], parts_of_message: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(parts, **changes)
    for words in parts_of_message:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"object_sets": 24, "style_sets": 4},
        {"object_sets": 25},
        {"object_sets": 30, "held_out_only": False},
        {"object_sets": 37, "held_out_only": False},
        {"style_sets": 5},
        {"style_sets": 5, "held_out_only": False},
        {"style_set_size": [5, 8]},
        {"style_set_size": [6, 8]},
        {"unseen_categories": ["brid"]},
        {"unseen_categories": ["brid"], "object_sets": 0},
    ],
)
@pytest.mark.parametrize("held_out", [HELD_OUT, HELD_OUT | {"source": "elsewhere"}, None])
def test_check_enough_raises_the_error_of_the_plan(
    parts: list[Path], changes: dict[str, Any], held_out: dict[str, Any] | None
) -> None:
    """Before the pool exists: the same error as afterwards, or none."""
    options = {name: SETTINGS[name] for name in SETTINGS if name not in ("seed", "splits")} | changes
    options.pop("near_duplicate_distance")
    later = earlier = ""
    try:
        make_plan(parts, held_out=held_out, source="here", **changes)
    except InputError as error:
        later = str(error)
    labels = [
        {name: row[name] for name in ("image_id", "subject", "category", "style")} for row in pool_rows()
    ]
    try:
        sampling.check_enough(labels, held_out, source="here", **options)
    except InputError as error:
        earlier = str(error)
    assert earlier == later


def test_an_id_in_two_parts_is_an_error(tmp_path: Path) -> None:
    rows = pool_rows()
    with pytest.raises(InputError, match=r"image_id 'animal 0\.plain' occurs twice"):
        make_plan(write_pool(tmp_path, [*rows, rows[0]], 40))


def test_exemplars_the_base_model_may_have_seen_are_a_warning(parts: list[Path]) -> None:
    [line] = make_plan(parts, held_out=None).warnings
    assert "does not say" in line
    loose = make_plan(parts, held_out_only=False, object_sets=30, style_sets=5)
    known = [
        row
        for row in loose.exemplars
        if row["kind"] == "object" and row["subject"] not in HELD_OUT["subjects"]
    ]
    assert len(known) >= 6
    [line] = loose.warnings
    assert "held_out_only is false" in line and f"{len(known) + 1} sets" in line, "one style is known, too"
    assert make_plan(parts, held_out_only=True).warnings == []


def test_images_of_another_source_are_all_unseen_by_the_base_model(parts: list[Path]) -> None:
    held_out = HELD_OUT | {"source": "openmoji"}
    assert make_plan(parts, held_out=held_out) == make_plan(parts)
    assert make_plan(parts, held_out=held_out, source="folder", object_sets=30).warnings == []
    free = make_plan(parts, held_out=None, object_sets=30)
    for only in (True, False):
        other = make_plan(parts, held_out=held_out, source="folder", object_sets=30, held_out_only=only)
        assert other.exemplars == free.exemplars


def test_images_without_labels(tmp_path: Path) -> None:
    """Style sets of a source without subjects: every image counts as another object."""
    rows = [pool_row(f"{number}.jpg", None, None, "oil" if number < 5 else None) for number in range(9)]
    result = make_plan(
        write_pool(tmp_path, rows),
        held_out=None,
        object_sets=0,
        style_sets=1,
        unseen_categories=[],
        style_set_size=[5, 5],
    )
    assert {row["image_id"] for row in result.exemplars} == {f"{number}.jpg" for number in range(5)}
    assert {row["reason"] for row in result.excluded} == {"exemplar"}


def test_several_plain_images_of_a_subject_make_one_set(tmp_path: Path) -> None:
    rows = pool_rows() + [pool_row(f"again {number}", f"toy {number}", "toy", None) for number in range(4)]
    result = make_plan(write_pool(tmp_path, rows), object_sets=24)
    assert len({row["subject"] for row in result.exemplars if row["kind"] == "object"}) == 24
    with pytest.raises(InputError, match="only 24 different subjects"):
        make_plan(write_pool(tmp_path, rows), object_sets=25)


def test_candidates_are_streamed() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for row in pool_rows():
            yield {name: row[name] for name in plan.COLUMNS}

    plain, styled = sampling.candidates(rows(), HELD_OUT, held_out_only=True)
    assert (len(plain), len(styled)) == (24, 20)
    plain, styled = sampling.candidates(rows(), None, held_out_only=True)
    assert (len(plain), len(styled)) == (36, 56)


def test_script(run_script: Callable[..., None], parts: list[Path], tmp_path: Path) -> None:
    description = tmp_path / "base_model.json"
    description.write_text(json.dumps({"fingerprint": "x", "held_out": HELD_OUT}))
    settings = {name: value for name, value in SETTINGS.items() if name != "seed"}
    lists = {"object": {"scene": "object_scene"}, "style": {"theme": "style_theme"}}
    run_script(
        "exemplars",
        input={"pool": [str(path) for path in parts], "base_model": str(description)},
        output={name: str(tmp_path / f"{name}.parquet") for name in ("exemplars", "prompts", "excluded")},
        params={
            "settings": settings,
            "source": "openmoji",
            "prompts": {"lists": lists, "prompts_each": 2},
            "seed": SETTINGS["seed"],
        },
    )
    result = make_plan(parts)
    assert tables.read(tmp_path / "exemplars.parquet", "exemplars").to_pylist() == result.exemplars
    assert tables.read(tmp_path / "excluded.parquet", "excluded").to_pylist() == result.excluded
    prompt_rows = tables.read(tmp_path / "prompts.parquet", "prompts").to_pylist()
    assert len(prompt_rows) == 15 * 2
    assert prompt_rows == prompts.expand(
        result.exemplars, result.captions, lists=lists, prompts_each=2, seed=11
    )
    assert not any("in the snow" in row["prompt"] for row in prompt_rows)


def test_the_plan_needs_no_heavy_import() -> None:
    code = (
        "import sys, attrib_core.data.pool, attrib_core.data.exemplars.plan, attrib_core.data.prompts;"
        "import attrib_core.data.sources.openmoji, attrib_core.data.sources.folder;"
        "print(sorted({'torch', 'diffusers', 'snakemake', 'faiss'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
