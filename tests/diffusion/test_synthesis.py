"""The stage `synthesize`: rows, formats, and what must not change an image."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.data.images import to_rgb
from attrib_core.diffusion.pipeline.components import Components
from attrib_core.features.embedding import encode, encoder_protocol
from attrib_core.report.sections.thumbnails import thumbnail
from attrib_core.storage import tables
from tests.diffusion import diffusion_fixtures as fixtures
from tests.diffusion.diffusion_fixtures import TOKEN, close, decode
from tests.diffusion.synthesis_fixtures import SETS


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
        InputError, match="model of 'object-2': trained on base model other, but base_model.json"
    ):
        synthesize([models[0] | {"base_model": "other"}])
    path = tmp_path / "run" / models[0]["delta_path"]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match=rf"{path}: its bytes, .* are not those of the table of models"):
        synthesize(models)
    path.unlink()
    with pytest.raises(InputError, match=rf"{path}: no such delta; .* --forcerun customize_part"):
        synthesize(models)


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
