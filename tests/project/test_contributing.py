"""The recipes of CONTRIBUTING.md work as written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from attrib_core.common import families
from attrib_core.config.load import load_config, plain
from attrib_core.data import pool
from attrib_core.data.images import to_png
from attrib_core.features.embedding import encode

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf-8")


def recipe(title: str) -> tuple[str, dict[str, Any]]:
    """The Python and the YAML block below a heading."""
    section = TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    python, config = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("python", "yaml"))
    assert config is not None
    return (python[1] if python else ""), yaml.safe_load(config[1])


def test_the_encoder(add_family: Callable[[str, str, str], None], tmp_path: Path) -> None:
    code, lines = recipe("Add an encoder")
    add_family("encoders", "brightness", code)
    section = plain(load_config(lines))["encoders"]["brightness"]
    family, options = families.split(section)
    encoder = families.load("encoders", family, options, where="encoders.brightness")
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, :8] = 255
    vectors = encoder.encode(iter([image, image[::-1]]))
    assert vectors.shape == (2, encoder.dim) == (2, 64) and vectors.dtype == np.float32
    assert vectors[0].reshape(8, 8)[:4, :4].min() == 1 and vectors.sum() == 32
    images = tmp_path / "images.parquet"
    rows = [{"image_id": str(n), "image": {"bytes": to_png(image), "path": f"{n}.png"}} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), images)
    [(ids, features)] = encode.encode_table(images, id_column="image_id", encoder=encoder)
    assert ids == ["0", "1", "2"] and features.shape == (3, 64)


def test_the_source(add_family: Callable[[str, str, str], None]) -> None:
    code, lines = recipe("Add a source")
    add_family("sources", "noise", code)
    config = plain(load_config({"pool": {**lines["pool"], "images": 4000}}))
    section = config["pool"]["source"]
    rows = list(pool.part(section, start=2, stop=5, seed=1))
    assert [(kind, row["image_id"]) for kind, row in rows] == [("pool", f"noise-{n}") for n in (2, 3, 4)]
    assert list(pool.part(section, start=4, stop=5, seed=1)) == rows[2:]
    assert isinstance(pool.source_state(section, start=0, stop=3, seed=1), str)


@pytest.mark.parametrize("title", ["Add a customization method", "Add a metric"])
def test_what_the_other_recipes_name_exists(title: str) -> None:
    section = TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    root = Path(__file__).parents[2]
    for name in re.findall(r"`(attrib_core/[\w/]+\.py)(?::(\w+))?`", section):
        text = (root / name[0]).read_text("utf-8")
        assert not name[1] or f"def {name[1]}(" in text
    module, _, attribute = "attrib_core.diffusion.customization.method.Customizer".rpartition(".")
    if attribute in section:
        assert f"class {attribute}:" in (root / f"{module.replace('.', '/')}.py").read_text("utf-8")


def test_the_customization_method(add_family: Callable[[str, str, str], None], tmp_path: Path) -> None:
    from attrib_core.diffusion.pipeline import components, description
    from tests.diffusion import diffusion_fixtures as made

    code, lines = recipe("Add a customization method")
    add_family("customizers", "values", code)
    family, options = families.split(plain(load_config(lines))["customizer"])
    method = families.load("customizers", family, options, where="customizer")
    base = components.load(description.describe(made.save_base(tmp_path / "tiny")), "cpu")
    stack = method.start(components.with_token(base, "<new1>"), ["fruit", "animal"], 0)
    assert {key.split(".attn2.")[1] for key in stack.delta(1).weights} == {"to_v.weight"}
