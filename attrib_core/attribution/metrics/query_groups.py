"""The queries of one encoder and mapper with their metrics, and the groups that tables average over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from attrib_core.attribution.metrics import ceiling_and_chance
from attrib_core.attribution.metrics.per_query import per_query, positions
from attrib_core.common.crossing import Crossing
from attrib_core.common.errors import InputError

EXEMPLAR_COLUMNS = ("exemplar_set", "kind", "split", "seen")
RANK_COLUMNS = (
    "encoder", "mapper", "query_id", "exemplar_set", "condition", "prompt_kind", "exemplar_id",
    "n_above", "n_tied", "n_siblings_above", "n_distractors",
)  # fmt: skip
CROSSED = ("exemplar_set", "prompt", "prompt_kind")
SEEN = {"all": (True, False), "seen": (True,), "unseen": (False,)}


class Group(NamedTuple):
    """A group of queries of one system: what a row of `metrics` averages over."""

    condition: str
    split: str
    kind: str
    seen: str
    prompt_kind: str


@dataclass(frozen=True, eq=False)
class System:
    """All queries ranked with one encoder and mapper; every array is (queries,), in the order of names.

    labels                   exemplar_set, condition, prompt_kind, kind, split, and category and prompt where they
                             are known, str; seen, bool
    exemplars, candidates    numbers of exemplars, and of exemplars and distractors together
    values, ceiling, chance  by (metric, k); chance lacks median_rank, which is no mean
    """

    encoder: str
    mapper: str
    labels: dict[str, np.ndarray]
    exemplars: np.ndarray
    candidates: np.ndarray
    values: dict[tuple[str, int | None], np.ndarray]
    ceiling: dict[tuple[str, int | None], np.ndarray]
    chance: dict[tuple[str, int | None], np.ndarray]

    def groups(self) -> Iterator[tuple[Group, np.ndarray]]:
        """Yield every group that has queries, with the indices of its queries, in a fixed order."""
        fine = ("condition", "split", "kind", "prompt_kind")
        for condition, split, kind, prompt_kind in _combinations([self.labels[name] for name in fine]):
            chosen = np.ones(len(self.exemplars), bool)
            for name, value in zip(fine, (condition, split, kind, prompt_kind), strict=True):
                chosen &= (self.labels[name] == value) | (value == "all")
            for seen, values in SEEN.items():
                members = np.flatnonzero(chosen & np.isin(self.labels["seen"], values))
                if len(members):
                    yield Group(condition, split, kind, seen, prompt_kind), members

    @cached_property
    def numbered(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return for exemplar_set, prompt and prompt_kind the names, sorted, and the number of each query's."""
        names = [name for name in CROSSED if name in self.labels]
        return {name: np.unique(self.labels[name], return_inverse=True) for name in names}

    def crossing(self, members: np.ndarray) -> Crossing:
        """Return the models and prompts of some queries."""
        return joint_crossing([(self, members)])


def joint_crossing(sides: Sequence[tuple[System, np.ndarray]]) -> Crossing:
    """Return the models and prompts of queries of one or more systems, one system after the other."""

    def joined(name: str) -> np.ndarray | None:
        known = [one.numbered[name] for one, _ in sides if name in one.numbered]
        if len(known) < len(sides):
            return None
        names = np.unique(np.concatenate([own for own, _ in known]))
        return np.concatenate(
            [
                np.searchsorted(names, own)[numbers[members]]
                for (own, numbers), (_, members) in zip(known, sides, strict=True)
            ]
        )

    models = joined("exemplar_set")
    assert models is not None  # every system has names of exemplar sets
    return Crossing(models, prompts=joined("prompt"), lists=joined("prompt_kind"))


def _combinations(columns: list[np.ndarray]) -> list[tuple[str, ...]]:
    """Return the distinct combinations of labels, and those with 'all' in place of the last one."""
    found = set(zip(*(column.tolist() for column in columns), strict=True))
    return sorted(found | {(*combination[:-1], "all") for combination in found})


def system_from_ranks(
    ranks: pa.Table, exemplars: pa.Table, ks: Sequence[int], ties: str, where: str
) -> System:
    """Compute the metrics of the queries of one table `ranks`.

    `exemplars` has the columns EXEMPLAR_COLUMNS, and `category` where its groups are wanted. Raises
    InputError for an empty table, more than one encoder or mapper, or an exemplar set that `exemplars`
    lacks; `where` names the file.
    """
    if not len(ranks):
        raise InputError(f"{where}: no rows, expected ranks of at least one query")
    encoder, mapper = (_only(ranks, name, where) for name in ("encoder", "mapper"))
    ranking = positions(ranks, ties)
    first = np.unique(ranking.query, return_index=True)[1]  # a row of each query: all have the same labels
    labels = {name: _strings(ranks, name)[first] for name in ("exemplar_set", "condition", "prompt_kind")}
    prompts = prompts_of(
        ranking.queries.tolist(), *(labels[name].tolist() for name in ("exemplar_set", "condition"))
    )
    if prompts is not None:
        labels["prompt"] = prompts
    labels |= _set_labels(labels["exemplar_set"], exemplars, where)
    n = ranking.exemplars()
    candidates = n + ranks.column("n_distractors").to_numpy()[first]
    values = per_query(ranking, ks)
    return System(
        encoder, mapper, labels, n, candidates, values,
        ceiling_and_chance.ceilings(list(values), n), ceiling_and_chance.chances(list(values), n, candidates),
    )  # fmt: skip


def prompts_of(queries: Sequence[str], sets: Sequence[str], conditions: Sequence[str]) -> np.ndarray | None:
    """Return the prompt of each query, such as 'scene-3', from names as synthesis gives them.

    A name is '<exemplar set>.<condition>.<prompt kind>-<prompt index>.<sample>'. None where any has another form.
    """
    found = []
    for query, own, condition in zip(queries, sets, conditions, strict=True):
        prefix = f"{own}.{condition}."
        prompt, _, sample = query.removeprefix(prefix).rpartition(".")
        if not query.startswith(prefix) or not prompt or not sample.isdigit():
            return None
        found.append(prompt)
    return np.array(found)


def _set_labels(names: np.ndarray, exemplars: pa.Table, where: str) -> dict[str, np.ndarray]:
    columns = [*EXEMPLAR_COLUMNS, *({"category"} & set(exemplars.column_names))]
    known = {row["exemplar_set"]: row for row in exemplars.select(columns).to_pylist()}
    distinct, index = np.unique(names, return_inverse=True)
    missing = [name for name in distinct if name not in known]
    if missing:
        raise InputError(f"{where}: exemplar set {missing[0]!r} is not in the table of exemplars")
    rows = [known[name] for name in distinct]
    return {name: np.array([row[name] for row in rows])[index] for name in columns[1:]}


def _strings(table: pa.Table, name: str) -> np.ndarray:
    strings: np.ndarray = table.column(name).to_numpy(zero_copy_only=False).astype(np.str_)
    return strings


def _only(ranks: pa.Table, name: str, where: str) -> str:
    """Return the value of a column that has one value in all rows."""
    found: list[str] = sorted(ranks.column(name).unique().to_pylist())
    if len(found) != 1:
        raise InputError(f"{where}: column {name!r} has values {found}, expected one")
    return found[0]
