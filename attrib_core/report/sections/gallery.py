"""The gallery: exemplar sets of the test split, their synthesized images and retrieved candidates.

Only the images that are shown are read. Sets and queries (see `report_sample`) are sampled by seed, regardless of
outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from attrib_core.attribution.metrics.metrics_table import Row
from attrib_core.common.constants import KINDS
from attrib_core.common.errors import InputError
from attrib_core.diffusion.synthesis import report_sample
from attrib_core.report.run_results import RunFiles
from attrib_core.report.sections.row_lookup import rows_by_id
from attrib_core.report.sections.thumbnails import thumbnail
from attrib_core.storage import parquet_files, tables

MOST_EXEMPLARS = 8
QUERY_COLUMNS = (*report_sample.COLUMNS, "prompt")


@dataclass(frozen=True)
class Image:
    """An image of the page: a data URI and its alternative text."""

    source: str
    alt: str


@dataclass(frozen=True)
class Candidate:
    """A retrieved candidate with its influence."""

    image: Image
    name: str
    rank: int
    similarity: float
    influence: float
    is_exemplar: bool


@dataclass(frozen=True)
class Retrieval:
    """A synthesized image, the control of the same prompt and noise, and the candidates.

    `exemplar_rank` is the rank of the best exemplar, `exemplar_influence` the sum over the exemplars of the set.
    """

    query_id: str
    prompt: str
    prompt_kind: str
    query: Image
    control: Image | None
    candidates: list[Candidate]
    exemplar_rank: int
    exemplar_influence: float


@dataclass(frozen=True)
class ShownSet:
    """An exemplar set of the gallery; `hidden` is the number of exemplars beyond MOST_EXEMPLARS."""

    name: str
    kind: str
    title: str
    category: str
    seen: bool
    exemplars: list[Image]
    hidden: int
    retrievals: list[Retrieval]


@dataclass(frozen=True)
class Gallery:
    """The sets by kind, and the credits: (licence, attribution, number of images)."""

    sets: dict[str, list[ShownSet]]
    credits: list[tuple[str, str, int]]


def build(
    files: RunFiles,
    *,
    soft_scores: Mapping[str, Path],
    seed: int,
    sets_each: int,
    retrievals: int,
) -> Gallery:
    """Sample sets and queries, look up their candidates, and read the images.

    `soft_scores` are the tables of the features that the gallery uses, by kind of sets; `sets_each` is the number of
    sets of each kind, `retrievals` of candidates an image. Raises InputError where a row that one table names is
    missing in another.
    """
    exemplars = _chosen_exemplars(files.exemplars, seed, sets_each)
    queries = _sampled_queries(files.sample, list(exemplars))
    query_ids: dict[str, list[str]] = {}
    for name, rows in queries.items():
        query_ids.setdefault(exemplars[name][0]["kind"], []).extend(row["query_id"] for row in rows)
    scores: dict[str, list[Row]] = {}
    for kind, names in query_ids.items():
        scores |= _scores(soft_scores[kind], names, retrievals)
    found = _find(files, exemplars, queries, [row for rows in scores.values() for row in rows[:retrievals]])
    sets: dict[str, list[ShownSet]] = {}
    for name, rows in exemplars.items():
        first = rows[0]
        title = first["style"] if first["kind"] == "style" else first["subject"]
        shown = ShownSet(
            name=name,
            kind=first["kind"],
            title=title or name,
            category=first["category"],
            seen=first["seen"],
            exemplars=[_exemplar(row["exemplar_id"], found) for row in rows[:MOST_EXEMPLARS]],
            hidden=max(0, len(rows) - MOST_EXEMPLARS),
            retrievals=[
                _retrieval(row, scores[row["query_id"]], found, retrievals) for row in queries.get(name, [])
            ],
        )
        sets.setdefault(first["kind"], []).append(shown)
    counted = Counter((row["licence"], row["attribution"]) for row in found.pool.values())
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return Gallery(sets, [(licence, credit, number) for (licence, credit), number in ordered])


@dataclass(frozen=True)
class _Found:
    """Rows with images: exemplars by exemplar_id, synthesized by query_id, pool by image_id.

    Pool rows are those of distractors and, for their credits, of exemplars.
    """

    exemplars: dict[str, Row]
    synthesized: dict[str, Row]
    pool: dict[str, Row]


def _find(
    files: RunFiles, exemplars: dict[str, list[Row]], queries: dict[str, list[Row]], candidates: list[Row]
) -> _Found:
    own = {row["exemplar_id"] for rows in exemplars.values() for row in rows[:MOST_EXEMPLARS]}
    own |= {row["candidate_id"] for row in candidates if row["is_exemplar"]}
    columns = ["image", "image_id", "subject", "category"]
    shown = rows_by_id([files.exemplars], "exemplar_id", own, columns)
    distractors = {row["candidate_id"] for row in candidates if not row["is_exemplar"]}
    names = distractors | {row["image_id"] for row in shown.values()}
    pool = rows_by_id(files.pool, "image_id", names, ["image", "caption", "licence", "attribution"])
    images = {row[name] for rows in queries.values() for row in rows for name in ("query_id", "control_id")}
    return _Found(shown, rows_by_id(files.sample, "query_id", images - {None}, ["image"]), pool)


def _exemplar(name: str, found: _Found) -> Image:
    row = found.exemplars[name]
    source = thumbnail(row["image"]["bytes"], where=f"exemplar {name}")
    return Image(source, f"exemplar {name}: {row['subject'] or row['category']}")


def _synthesized(name: str, prompt: str, found: _Found) -> Image:
    return Image(thumbnail(found.synthesized[name]["image"]["bytes"], where=f"query {name}"), prompt)


def _candidate(row: Row, found: _Found) -> Candidate:
    name = row["candidate_id"]
    if row["is_exemplar"]:
        image = _exemplar(name, found)
    else:
        data, caption = found.pool[name]["image"]["bytes"], found.pool[name]["caption"]
        image = Image(thumbnail(data, where=f"image {name}"), caption)
    return Candidate(image, name, row["rank"], row["similarity"], row["influence"], row["is_exemplar"])


def _retrieval(query: Row, scores: list[Row], found: _Found, retrievals: int) -> Retrieval:
    own = [row for row in scores if row["is_exemplar"]]
    if not own:
        raise InputError(f"soft_scores: no exemplar among the candidates of the query {query['query_id']!r}")
    control = query["control_id"]
    return Retrieval(
        query_id=query["query_id"],
        prompt=query["prompt"],
        prompt_kind=query["prompt_kind"],
        query=_synthesized(query["query_id"], query["prompt"], found),
        control=_synthesized(control, query["control_prompt"], found) if control else None,
        candidates=[_candidate(row, found) for row in scores[:retrievals]],
        exemplar_rank=min(row["rank"] for row in own),
        exemplar_influence=sum(row["influence"] for row in own),
    )


def _chosen_exemplars(path: Path, seed: int, sets_each: int) -> dict[str, list[Row]]:
    """Sample sets and return their exemplars without images, object sets first."""
    columns = [
        "exemplar_id",
        "exemplar_set",
        "image_id",
        "kind",
        "category",
        "subject",
        "style",
        "split",
        "seen",
    ]
    rows = [row for row in tables.read(path, "exemplars", columns).to_pylist() if row["split"] == "test"]
    chosen: dict[str, list[Row]] = {}
    for kind in KINDS:
        names = {row["exemplar_set"] for row in rows if row["kind"] == kind}
        for name in sorted(report_sample.choose_by_seed(names, sets_each, seed, kind)):
            chosen[name] = [row for row in rows if row["exemplar_set"] == name]
    return chosen


def _sampled_queries(paths: Sequence[Path], sets: Sequence[str]) -> dict[str, list[Row]]:
    """Return the sampled images of customized models by set.

    Each row also has the query_id and prompt of its control as `control_id` and `control_prompt`, None where the run
    has no control.
    """
    wanted = pa.array(sets, pa.string())
    rows: list[Row] = []
    for batch in tables.iterate(paths, QUERY_COLUMNS, 65536):
        rows += batch.filter(pc.is_in(batch.column("exemplar_set"), value_set=wanted)).to_pylist()
    found: dict[str, list[Row]] = {}
    for name, own in report_sample.with_controls(rows).items():
        for row in own:
            control = row["control"] or {}
            row = {**row, "control_id": control.get("query_id"), "control_prompt": control.get("prompt")}
            found.setdefault(name, []).append(row)
        found[name].sort(key=lambda row: (row["prompt_kind"], row["query_id"]))
    return found


def _scores(path: Path, queries: Sequence[str], retrievals: int) -> dict[str, list[Row]]:
    """Read the soft scores by query, best first: the top candidates and all exemplars."""
    top = (ds.field("rank") <= retrievals) | ds.field("is_exemplar")
    table = parquet_files.where(path, ds.field("query_id").isin(pa.array(queries, pa.string())) & top)
    found: dict[str, list[Row]] = {name: [] for name in queries}
    for row in sorted(
        table.to_pylist(), key=lambda row: (row["rank"], not row["is_exemplar"], row["candidate_id"])
    ):
        found[row["query_id"]].append(row)
    missing = [name for name, rows in found.items() if not rows]
    if missing:
        raise InputError(
            f"{path}: no rows for the query {missing[0]!r}; the table must have every query of a customized test model"
        )
    return found
