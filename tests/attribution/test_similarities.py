"""Batches of similarities: read, without exemplars, and with a smaller pool."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from attrib_core.attribution.calibration.similarities import from_candidates
from attrib_core.attribution.calibration.subsampling import hold_out_exemplars, select_queries, subsample_pool
from attrib_core.common.errors import InputError
from attrib_core.storage import tables
from tests.attribution.calibration_fixtures import Case, batches, calibrated


def test_candidates_alone_give_the_bits_of_a_batch_with_exemplars_held_out(case: Case) -> None:
    (known,) = batches(case)
    table = tables.read(case.candidates, "candidates")
    places = {name: number for number, name in enumerate(table["query_id"].to_pylist())}
    chosen = table.take(pa.array([places[name] for name in known.queries]))
    alone, expected = from_candidates(chosen, known.kinds), hold_out_exemplars(known)
    assert alone.sets == [""] * len(known.queries)
    for field in fields(alone):
        one, other = (getattr(side, field.name) for side in (alone, expected))
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other), field.name
        elif field.name != "sets":
            assert one == other, field.name


def test_errors_name_what_does_not_fit(case: Case, tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    whole = tables.read(case.candidates, "candidates")
    tables.write(few, "candidates", whole.slice(3))
    short = tmp_path / "short.parquet"
    ids = pa.array([names[1:] for names in whole.column("candidate_ids").to_pylist()], pa.list_(pa.string()))
    similarities = pa.array(
        [values[1:] for values in whole.column("similarities").to_pylist()], pa.list_(pa.float32())
    )
    cut = whole.set_column(3, "candidate_ids", ids).set_column(4, "similarities", similarities)
    tables.write(short, "candidates", tables.conform(cut, tables.schema("candidates"), "short"))
    cases = [
        (case._replace(candidates=few), ["few.parquet", "'s00-q0'"]),
        (case._replace(candidates=short), ["short.parquet", "'s00-q0'", "were ranked"]),
        (case._replace(exemplars=case.exemplars.slice(1)), ["'s00'", "not in the table"]),
    ]
    for broken, words in cases:
        with pytest.raises(InputError) as error:
            calibrated(broken)
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="calibration.shown: -1"):
        calibrated(case, shown=-1)


def test_a_subsampled_pool_has_the_share_of_candidates_and_smaller_ones_are_subsets(
    second_case: Case,
) -> None:
    (one,) = batches(second_case)
    half, quarter = (subsample_pool(one, share, 7) for share in (0.5, 0.25))
    singles = [set(piece.ids[piece.exemplars :]) for piece in (one, half, quarter)]
    assert singles[0] > singles[1] > singles[2]
    assert half.exemplars == one.exemplars and half.gap.max() == 0
    left = half.n_candidates() - half.n_exemplars()
    whole = one.n_candidates() - one.n_exemplars()
    np.testing.assert_allclose(left / whole, 0.5, atol=0.02)
    alone = subsample_pool(select_queries(one, np.arange(len(one.queries)) == 2), 0.5, 7)
    together = select_queries(half, np.arange(len(one.queries)) == 2)
    assert alone.ids == together.ids
    np.testing.assert_array_equal(alone.count, together.count)
