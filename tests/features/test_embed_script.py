"""The script of the stage `embed`: it writes a part of embeddings, or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from attrib_core.common import families
from attrib_core.features.embedding import embedding_tables, encode
from tests.features.embedding_fixtures import noise_images, png, write_images


def test_a_dimension_that_changes_midway_is_refused_and_no_file_is_left(run_script, tmp_path, add_family):
    add_family(
        "encoders",
        "changing",
        """
        import numpy as np

        class Changing:
            identity = {"family": "changing"}
            dim = 4
            calls = 0

            def encode(self, images):
                self.calls += 1
                return np.ones((len(list(images)), 4 if self.calls == 1 else 5), np.float32)

        def load():
            return Changing()
        """,
    )
    data = [png(one) for one in noise_images(encode.CHUNK + 3, size=8)]
    path = write_images(tmp_path / "a.parquet", [str(n) for n in range(len(data))], data)
    target = tmp_path / "out" / "part.parquet"
    with pytest.raises(SystemExit):
        run_script(
            "embed",
            input={"images": str(path)},
            output={"embeddings": str(target)},
            params={
                "id_column": "image_id",
                "text_column": "caption",
                "encoder": {"family": "changing"},
                "run": str(tmp_path / "run"),
                "pieces": {"by": None},
                "feature_code": "x",
            },
            wildcards={"encoder": "x"},
        )
    assert (
        "gave float32 of shape (3, 5) for 3 images, expected float32 of shape (3, 4)"
        in (tmp_path / "job.log").read_text()
    )
    assert not target.exists() and not list(target.parent.iterdir())


@pytest.mark.parametrize("column", ["image_id", "query_id", "exemplar_id"])
def test_the_script_writes_a_part(run_script, tmp_path, column):
    images = noise_images(3)
    path = write_images(tmp_path / "in.parquet", list("abc"), [png(one) for one in images], column=column)
    run_script(
        "embed",
        input={"images": str(path)},
        output={"embeddings": str(tmp_path / "out" / "part.parquet")},
        params={
            "id_column": column,
            "text_column": "prompt",
            "encoder": {"family": "pixel", "size": 4},
            "run": str(tmp_path / "run"),
            "pieces": {"by": None},
            "feature_code": "x",
        },
        wildcards={"encoder": "small"},
    )
    names, features = embedding_tables.read(tmp_path / "out" / "part.parquet")
    encoder = families.load("encoders", "pixel", {"size": 4})
    assert names == list("abc") and np.array_equal(features, encoder.encode(images))
    assert embedding_tables.identity(tmp_path / "out" / "part.parquet") == encoder.identity
