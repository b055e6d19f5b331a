"""The stage `synthesize`: what is stored is not generated again, and what must not change an image."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.data.images import to_rgb
from attrib_core.diffusion.deltas import delta_files
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.diffusion.synthesis import generate, report_sample, requests
from attrib_core.diffusion.synthesis import synthesize as part
from attrib_core.features.embedding import encode, encoder_protocol
from attrib_core.report.sections.thumbnails import thumbnail
from attrib_core.storage import tables
from attrib_core.storage.store import claims, pieces, references
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN, close, decode, random_delta
from tests.storage.claims_fixtures import Holder

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


@pytest.fixture
def models(loaded: Components, tmp_path: Path) -> list[dict[str, Any]]:
    """Rows of the table `models` for three sets, with their files in `tmp_path`."""
    (tmp_path / "run").mkdir()
    rows = []
    for number, one in enumerate(SETS):
        checksum = delta_files.write(
            tmp_path / "store" / "deltas", f"key-{number}", random_delta(loaded, number), TOKEN
        )
        delta_path, token_path = delta_files.paths(Path("../store/deltas"), f"key-{number}")
        rows.append(
            {
                "model_key": f"key-{number}",
                "exemplar_set": one.name,
                "method": "custom_diffusion",
                "base_model": loaded.base.fingerprint,
                "modifier_token": TOKEN,
                "delta_path": str(delta_path),
                "token_path": str(token_path),
                "checksum": checksum,
                "steps": 1,
                "loss": 0.0,
                "seconds": 0.0,
                "peak_memory": 1,
                "threads": 1,
                "device": "cpu",
                "device_name": "AMD EPYC",
            }
        )
    return rows


@pytest.fixture
def synthesize(loaded: Components, tmp_path: Path) -> Callable[..., pa.Table]:
    """Runs the stage in a folder of the test and returns one table; images are not kept unless `keep` is True."""

    def run(models: Sequence[dict[str, Any]], keep: bool = False, **changes: Any) -> pa.Table:
        prompts = changes.pop("prompts", fixtures.prompt_rows(SETS))
        base = changes.pop("base", loaded.base)
        given = {**OPTIONS, "run": tmp_path / "run", **changes}
        made_tables = part.synthesize(models, prompts, base, **given, seed=9, code="code", device="cpu")
        found = pa.concat_tables(table for _, table in made_tables)
        if not keep:
            for piece in tmp_path.glob("store/synthesized/*"):
                piece.unlink()
        return found

    return run


def test_rows(models: list[dict[str, Any]], synthesize: Callable[..., pa.Table], loaded: Components) -> None:
    rows = synthesize(models).to_pylist()
    assert len(rows) == 3 * 2 * 2 * 2 == len({row["query_id"] for row in rows})
    assert [row["exemplar_set"] for row in rows] == [one.name for one in SETS for _ in range(8)]
    first = rows[0]
    assert first["query_id"] == "object-2.customized.scene-2.0"
    assert (first["prompt"], first["model_key"]) == ("a <new1> fruit in the snow", "key-0")
    control = next(row for row in rows if row["query_id"] == "object-2.control.scene-2.0")
    assert (control["prompt"], control["model_key"]) == ("a fruit in the snow", loaded.base.fingerprint)
    assert control["seed"] == first["seed"] == hashing.seed("synthesize", 9, "object-2", "scene", 2, 0)
    assert len({row["seed"] for row in rows}) == len(rows) / 2
    assert len({row["image"]["bytes"] for row in rows}) == len(rows)


def test_part_and_position_in_a_batch_change_nothing(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table]
) -> None:
    whole = synthesize(models)
    assert synthesize(models[1:2]).equals(whole.slice(8, 8))
    turned = synthesize(models[::-1])
    assert turned.slice(16, 8).equals(whole.slice(0, 8))


def test_the_size_of_a_batch_changes_rounding_at_most(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table]
) -> None:
    whole = synthesize(models[:2], batch=16)
    for batch in (1, 3):
        other = synthesize(models[:2], batch=batch)
        assert close(decode(other["image"].to_pylist()), decode(whole["image"].to_pylist()))
        assert other.drop_columns("image").equals(whole.drop_columns("image"))


def test_finished_sets_are_kept_and_a_damaged_one_is_made_again(
    models: list[dict[str, Any]],
    synthesize: Callable[..., pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = synthesize(models)
    made_batches: list[int] = []
    real = generate._batch

    def counted(*given: Any, **options: Any) -> np.ndarray:
        if len(made_batches) == 2:
            raise KeyboardInterrupt
        made_batches.append(1)
        return real(*given, **options)

    monkeypatch.setattr(generate, "_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        synthesize(models, keep=True)
    kept = sorted(tmp_path.glob("store/synthesized/*.parquet"))
    assert len(kept) == 1
    monkeypatch.setattr(
        generate, "_batch", lambda *given, **options: made_batches.append(1) or real(*given, **options)
    )
    assert synthesize(models, keep=True).equals(expected)
    assert len(made_batches) == 2 + 4
    assert synthesize(models, keep=True).equals(expected)
    assert len(made_batches) == 2 + 4
    kept[0].write_bytes(b"damaged")
    assert synthesize(models, keep=True).equals(expected)
    assert len(made_batches) == 2 + 4 + 2
    assert not synthesize(models[:1], keep=True, guidance=2.0).equals(expected.slice(0, 8))


@pytest.mark.parametrize("image_format", ["webp", "webp_lossy", "jpeg"])
def test_every_format_is_noted_in_the_table_and_decoded_by_every_stage(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table], tmp_path: Path, image_format: str
) -> None:
    """To pixels by the function of all stages, to features by an encoder, to a thumbnail of the report."""
    whole = synthesize(models[:1])
    other = synthesize(models[:1], image_format=image_format, quality=95)
    lossless = image_format == "webp"
    said = image_format if lossless else f"{image_format} 95"
    assert set(whole["image_format"].to_pylist()) == {"png"}
    assert set(other["image_format"].to_pylist()) == {said}
    kind = {"jpeg": "JPEG"}.get(image_format, "WEBP")
    first, second = ([row["bytes"] for row in found["image"].to_pylist()] for found in (whole, other))
    assert {Image.open(io.BytesIO(data)).format for data in second} == {kind}
    decoded = [np.stack([to_rgb(data, where="x") for data in some]) for some in (first, second)]
    assert np.array_equal(decoded[0], decode(whole["image"].to_pylist()))
    assert np.array_equal(decoded[0], decoded[1]) == lossless
    gray = [some.mean(axis=-1) for some in decoded]  # colours of an untrained network are noise
    assert np.abs(gray[0] - gray[1]).mean() < 8
    path = tmp_path / "part.parquet"
    tables.write(path, "synthesized", other)
    encoder = encoder_protocol.load({"family": "pixel", "size": 4}, "x")
    ((_, features),) = encode.encode_table(path, id_column="query_id", encoder=encoder)
    assert np.array_equal(features, encoder.encode(list(decoded[1])))
    assert thumbnail(second[0], where="x").startswith("data:image/")


def test_quality_is_only_for_lossy_formats(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table]
) -> None:
    def size(**changes: Any) -> int:
        return sum(len(row["bytes"]) for row in synthesize(models[:1], **changes)["image"].to_pylist())

    for image_format in ("webp_lossy", "jpeg"):
        assert size(image_format=image_format, quality=20) < size(image_format=image_format, quality=95)
    assert synthesize(models[:1], quality=20, keep=True).equals(synthesize(models[:1], keep=True))
    with pytest.raises(InputError, match="synthesis.image_format: 'gif', choose one of 'png', 'webp'"):
        synthesize(models[:1], image_format="gif")


def test_another_run_with_the_same_settings_generates_nothing(
    models: list[dict[str, Any]],
    synthesize: Callable[..., pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = synthesize(models, keep=True)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(generate, "_batch", None)
    assert synthesize(models, keep=True, run=tmp_path / "other").equals(first)
    assert set(references.by_job(tmp_path / "other")) == {"synthesize_part/whole"}


def test_what_another_job_generates_is_left_for_last_and_not_generated(
    models: list[dict[str, Any]],
    synthesize: Callable[..., pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = synthesize(models, keep=True)
    folder = tmp_path / "store" / "synthesized"
    own = {
        pieces.read(folder, record.stem)["exemplar_set"][0].as_py(): record.stem
        for record in folder.glob("*.json")
    }
    first = own[models[0]["exemplar_set"]]
    for path in folder.iterdir():
        if path.stem == first:
            path.rename(tmp_path / path.name)
        else:
            path.unlink()
    other, drawn = Holder(folder, first), list[int]()
    real = generate._batch
    monkeypatch.setattr(
        generate, "_batch", lambda *given, **options: drawn.append(1) or real(*given, **options)
    )

    def slept(_: float) -> None:
        assert sum(1 for _ in folder.glob("*.json")) == len(SETS) - 1, "all others are drawn before"
        for suffix in (".parquet", ".json"):
            (tmp_path / f"{first}{suffix}").rename(folder / f"{first}{suffix}")
        other.end()

    monkeypatch.setattr(claims.time, "sleep", slept)
    assert synthesize(models, keep=True).equals(expected)
    assert len(drawn) == 4, "batches of five for two sets of eight images"


def test_the_sample_is_of_each_set_and_by_seed(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """Customized images that have a control, with these; a larger sample begins with the smaller one."""
    path = tmp_path / "part.parquet"
    tables.write(path, "synthesized", whole := synthesize(models, control_samples_each=1))
    rows = {row["query_id"]: row for row in whole.to_pylist()}
    before: set[str] = set()
    for samples in (1, 2, 9):
        found = pa.concat_tables(report_sample.sample_tables(path, samples=samples, seed=3)).to_pylist()
        assert all(row == rows[row["query_id"]] for row in found)
        for model in models:
            own = [row for row in found if row["exemplar_set"] == model["exemplar_set"]]
            customized = {
                report_sample.image_identity(row) for row in own if row["condition"] == requests.CUSTOMIZED
            }
            controls = {
                report_sample.image_identity(row) for row in own if row["condition"] == requests.CONTROL
            }
            assert customized == controls and len(customized) == min(samples, 2)
        names = {row["query_id"] for row in found}
        assert before <= names
        before = names
    others = [
        {
            row["query_id"]
            for table in report_sample.sample_tables(path, samples=1, seed=seed)
            for row in table.to_pylist()
        }
        for seed in range(8)
    ]
    assert any(others[0] != one for one in others)


def test_prompts_that_do_not_fit(models: list[dict[str, Any]], synthesize: Callable[..., pa.Table]) -> None:
    rows = fixtures.prompt_rows(SETS)
    with pytest.raises(
        InputError, match="prompts of 'object-2': 'a fruit' lacks the modifier token '<new1>'"
    ):
        synthesize(models, prompts=[rows[0] | {"prompt": "a fruit"}])
    with pytest.raises(InputError, match="control prompt 'a <new1> fruit' has the modifier token '<new1>'"):
        synthesize(models, prompts=[rows[0] | {"control_prompt": "a <new1> fruit"}])
    with pytest.raises(InputError, match="prompts of 'style-0': there are none"):
        synthesize(models[2:], prompts=rows[:4])
    with pytest.raises(InputError, match="tokens, the base model reads 24; shorten it"):
        synthesize(models, prompts=[row | {"prompt": "fruit " * 30 + TOKEN} for row in rows])


def test_models_that_do_not_fit(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table], tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match="model of 'object-2': made of base model other, but base_model.json"
    ):
        synthesize([models[0] | {"base_model": "other"}])
    path = tmp_path / "run" / models[0]["delta_path"]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match=rf"{path}: its bytes, .* are not those of the table of models"):
        synthesize(models)
    path.unlink()
    with pytest.raises(InputError, match=rf"{path}: no such delta; .* --forcerun customize_part"):
        synthesize(models)


@pytest.mark.parametrize("keep", ["all", "sample"])
def test_the_scripts(
    keep: str,
    models: list[dict[str, Any]],
    loaded: Components,
    tmp_path: Path,
    run_script: Callable[..., None],
) -> None:
    tables.write(tmp_path / "models.parquet", "models", models[2:])
    tables.write(tmp_path / "prompts.parquet", "prompts", fixtures.prompt_rows(SETS))
    tables.write_json(tmp_path / "base_model.json", loaded.base.as_json())
    settings = {name: OPTIONS[name] for name in ("steps", "guidance", "image_format", "quality")}
    output = tmp_path / "synthesized" / "part-0000.parquet"
    run_script(
        "synthesize_part",
        input={name: str(tmp_path / f"{name}.parquet") for name in ("models", "prompts")}
        | {"base_model": str(tmp_path / "base_model.json")},
        output={"images": str(output), "queries": str(output.with_name("queries-0000.parquet"))},
        params={
            "run": str(tmp_path / "run"),
            "keep": keep,
            "settings": settings,
            "samples": {"samples_each": 1, "control_samples_each": 1},
            "batch": OPTIONS["batch"],
            "seed": 9,
            "image_code": "x",
        },
        wildcards={"part": "0000"},
    )
    table = tables.read(output, "synthesized")
    assert table["condition"].to_pylist() == [requests.CUSTOMIZED] * 2 + [requests.CONTROL] * 2
    queries = tables.read(output.with_name("queries-0000.parquet"), "queries")
    assert queries.equals(table.select(queries.column_names))

    def kept() -> list[int]:
        return [path.stat().st_ino for path in tmp_path.glob("store/synthesized/*.parquet")]

    # the store has the part itself under another name, or the piece until the sample is drawn
    assert len(kept()) == 1 and (kept() == [output.stat().st_ino]) == (keep == "all")
    run_script(
        "sample_part",
        input={"images": str(output)},
        output={"sample": str(output.with_name("sample-0000.parquet"))},
        params={"run": str(tmp_path / "run"), "keep": keep, "shown": {"samples": 1}, "seed": 9},
        wildcards={"part": "0000"},
    )
    assert kept() == ([output.stat().st_ino] if keep == "all" else [])
    shown = tables.read(output.with_name("sample-0000.parquet"), "synthesized")
    assert shown["condition"].to_pylist() == [requests.CUSTOMIZED, requests.CONTROL]


def test_a_solver_that_does_not_exist_or_adds_no_noise(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table]
) -> None:
    with pytest.raises(InputError, match="synthesis.solver: 'euler', choose 'ddim' or 'dpm"):
        synthesize(models[:1], solver="euler")
    with pytest.raises(InputError, match="synthesis.eta: 0.5, but solver 'dpm"):
        synthesize(models[:1], solver="dpm++", eta=0.5)
    assert not synthesize(models[:1], solver="dpm++").equals(synthesize(models[:1]))


def test_noise_of_the_steps_does_not_depend_on_the_part(
    models: list[dict[str, Any]], synthesize: Callable[..., pa.Table]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a NaN among the latents would warn when it is converted to a pixel
        whole = synthesize(models[:2], eta=1.0)
    assert synthesize(models[1:2], eta=1.0).equals(whole.slice(8, 8))
    assert not whole.equals(synthesize(models[:2]))
