"""Compare two evaluations, given their tables `per_query`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from attrib_core.abc_benchmark.result_tables import COLUMN_BY_METRIC
from attrib_core.attribution.metrics.matched_comparison import Models, matched_difference
from attrib_core.attribution.metrics.paired_comparison import paired
from attrib_core.attribution.metrics.summary import MEDIAN, check_resamples, interval_columns
from attrib_core.common.crossing import Crossing
from attrib_core.common.errors import InputError, shown
from attrib_core.storage import parquet_files

MATCH = ("model", "category")


def read(folder: Path) -> pd.DataFrame:
    """Read the table `per_query` that `abc evaluate` wrote to a folder, and add columns `ties` and `mapper`.

    These two come from `metrics.parquet`, and are null where the folder has no readable one.
    """
    path = Path(folder) / "per_query.parquet"
    if not path.exists():
        raise InputError(f"{path}: no such file, expected the output of abc evaluate --out {folder}")
    table = parquet_files.read(path)
    missing = {"test", "prompt_kind", "model_index", "average_precision"} - set(table.column_names)
    if missing:
        raise InputError(f"{path}: missing columns {sorted(missing)}, expected the output of abc evaluate")
    _check_unique(path, table)
    settings = {name: _setting(Path(folder) / "metrics.parquet", name) for name in ("ties", "mapper")}
    return table.to_pandas().assign(**settings)


def _check_unique(path: Path, table: pa.Table) -> None:
    """Raise InputError where a query has more than one row, as in a file that was appended to itself."""
    key = ["test", "prompt_kind", "query_index"]
    if "query_index" not in table.column_names:
        return
    counts = table.group_by(key).aggregate([([], "count_all")])
    if (more := len(table) - len(counts)) > 0:
        test, kind, index = (counts[name][int(np.argmax(counts["count_all"]))].as_py() for name in key)
        raise InputError(
            f"{path}: {more} of {len(table)} rows are of a query that has another row, the first: query {index} of"
            f" {shown(test)}, {shown(kind)}; expected each query once"
        )


def describe(folder: Path, side: pd.DataFrame) -> str:
    """Return the folder of an evaluation, and its mapper if known."""
    mapper = _mapper(side)
    return str(folder) if mapper is None else f"{folder}, mapper {mapper}"


def _mapper(side: pd.DataFrame) -> str | None:
    return side["mapper"].iloc[0] if "mapper" in side and len(side) else None


def _setting(path: Path, column: str) -> str | None:
    try:
        return str(parquet_files.read(path, [column])[column][0].as_py())
    except (InputError, IndexError):
        return None


def check_comparable(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Raise InputError where two evaluations differ in more than their systems.

    They must have the same tie policy, and of each model in common the same queries and number of exemplars.
    """
    ties = [side["ties"].iloc[0] if "ties" in side and len(side) else None for side in (first, second)]
    if None not in ties and ties[0] != ties[1]:
        raise InputError(
            f"ties: the first evaluation counts ties as {ties[0]!r}, the second as {ties[1]!r}; run abc evaluate"
            " again with the same --ties"
        )
    model = ["test", "prompt_kind", "model_index"]
    if "query_index" in first and "query_index" in second:
        for name, mine, theirs in _different(
            *(side.groupby(model)["query_index"].agg(frozenset) for side in (first, second))
        ):
            raise InputError(
                f"{name} has {len(mine)} queries in the first evaluation and {len(theirs)} in the second, of which"
                f" {len(mine & theirs)} are the same; expected the same queries"
            )
    if "n_exemplars" in first and "n_exemplars" in second:
        for name, mine, theirs in _different(
            *(side.groupby(model)["n_exemplars"].first() for side in (first, second))
        ):
            raise InputError(
                f"{name} has {mine} exemplars in the first evaluation and {theirs} in the second; the test files are"
                " different"
            )


def _different(first: pd.Series, second: pd.Series) -> Iterator[tuple[str, Any, Any]]:
    """Yield the models that both have with other values, each with its name in a message and both values."""
    one, other = first.align(second, join="inner")
    for label in one.index[one != other]:
        test, kind, index = label
        yield f"model {index} of {test} ({kind})", one[label], other[label]


def compare(
    first: pd.DataFrame, second: pd.DataFrame, *, match: str = "model", resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield rows of the table `abc_comparisons`, for each test file and prompt kind.

    match  'model': two systems on the same test files, paired by model; 'category': two groups of
           different models, such as seen and unseen classes, matched by category

    Raises InputError where the two have nothing in common, and as `check_comparable` does.
    """
    check_resamples(resamples)
    if match not in MATCH:
        raise InputError(f"--match: {match!r}, expected one of {', '.join(MATCH)}")
    if match == "model":
        check_comparable(first, second)
    by_match = _paired if match == "model" else _matched
    rows = list(by_match(first, second, resamples, seed))
    if not rows and match == "category":
        for name, side in (("first", first), ("second", second)):
            if "category" not in side or not side["category"].notna().any():
                raise InputError(
                    f"--match category: the {name} evaluation ({', '.join(dict.fromkeys(side['test']))}) has no"
                    " categories; run its abc evaluate again with --cases, the JSON of each test file"
                )
    if not rows:
        what = (
            "test file, prompt kind and model" if match == "model" else "prompt kind and category (--cases)"
        )
        raise InputError(f"the two evaluations have no {what} in common, nothing to compare")
    names = dict(zip(("mapper", "against_mapper"), map(_mapper, (first, second)), strict=True))
    yield from (row | names for row in rows)


def _paired(first: pd.DataFrame, second: pd.DataFrame, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    for (test, kind), mine in first.groupby(["test", "prompt_kind"], sort=False):
        other = second[(second["test"] == test) & (second["prompt_kind"] == kind)]
        common = np.intersect1d(mine["model_index"], other["model_index"])
        if not len(common):
            continue
        mine, other = (side[side["model_index"].isin(common)] for side in (mine, other))
        names = [f"{model:06d}" for model in common]
        crossing = Crossing(np.concatenate([mine["model_index"], other["model_index"]]))
        for metric, k, name in _metrics(first, second):
            a, b = mine[name].to_numpy(), other[name].to_numpy()
            found = paired(metric, a, b, crossing, names, resamples=resamples, seed=seed)
            yield {
                "test": test, "against_test": test, "prompt_kind": kind, "matched_by": "model",
                "metric": metric, "k": k, **found.columns(), "n_models": len(common), "n_against": len(common),
            }  # fmt: skip


def _matched(
    first: pd.DataFrame, second: pd.DataFrame, resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    tests = [", ".join(dict.fromkeys(side["test"])) for side in (first, second)]
    for kind in dict.fromkeys(first["prompt_kind"]):
        sides = [side[(side["prompt_kind"] == kind) & side["category"].notna()] for side in (first, second)]
        for metric, k, name in _metrics(first, second):
            found = None
            if metric != MEDIAN and all(map(len, sides)):
                found = matched_difference(
                    *(_models(side, name) for side in sides), resamples=resamples, seed=seed
                )
            if found is not None:
                yield {
                    "test": tests[0], "against_test": tests[1], "prompt_kind": kind, "matched_by": "category",
                    "metric": metric, "k": k, "value": found.ours, "against_value": found.theirs,
                    "difference": found.ours - found.theirs, **interval_columns(found.interval),
                    "p_value": found.p_value, "p_error": found.p_error, "n_models": found.n_ours,
                    "n_against": found.n_theirs,
                }  # fmt: skip


def _models(side: pd.DataFrame, name: str) -> Models:
    by_model = side.groupby(["test", "model_index"], sort=True)
    names = [f"{test} {model:06d}" for test, model in by_model.groups]
    return Models(
        np.array(names), by_model[name].mean().to_numpy(), by_model["category"].first().to_numpy(str)
    )


def _metrics(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[tuple[str, int | None, str]]:
    """Yield (metric, k, column) of the columns that both tables have."""
    common = [name for name in first.columns if name in set(second.columns)]
    for metric, column in COLUMN_BY_METRIC.items():
        start = column.partition("{")[0]
        for name in common:
            if name == column:
                yield metric, None, name
            elif start != column and name.startswith(start):
                yield metric, int(name.removeprefix(start)), name
