"""The gallery: seeded exemplar sets of the test split, their images and what retrieval found.

Only the images that are shown are read. Sets and queries (`synthesis.sample`) are
drawn by seed, never by how well they turned out.
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
from attrib_core.storage import tables

MOST_EXEMPLARS = 8
QUERY_COLUMNS = (*report_sample.COLUMNS, "prompt")


@dataclass(frozen=True)
class Image:
    """An image on the page: a data URI and what it shows in words."""

    source: str
    alt: str


@dataclass(frozen=True)
class Candidate:
    """A retrieved candidate with its share of influence."""

    image: Image
    name: str
    rank: int
    similarity: float
    influence: float
    is_exemplar: bool


@dataclass(frozen=True)
class Retrieval:
    """A synthesized image, the base model's image of the same prompt and noise, and its candidates.

    `exemplar_rank` is that of the best exemplar, `exemplar_influence` the sum
    over the set's exemplars.
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
    """An exemplar set of the gallery; `hidden` exemplars are not shown for want of space."""

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
    """The sets shown, by kind, and the credits: (licence, attribution, images)."""

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
    """Choose what is shown, look it up, and read the images.

    `soft_scores` are by kind of sets the tables of the encoder and mapper whose
    retrievals are shown, `sets_each` the number of sets of each kind, `retrievals` of
    candidates an image. Raises InputError where a row that one table names is missing in another.
    """
    exemplars = _chosen_exemplars(files.exemplars, seed, sets_each)
    queries = _sampled_queries(files.sample, list(exemplars))
    asked: dict[str, list[str]] = {}
    for name, rows in queries.items():
        asked.setdefault(exemplars[name][0]["kind"], []).extend(row["query_id"] for row in rows)
    scores: dict[str, list[Row]] = {}
    for kind, names in asked.items():
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

    The pool's rows are those of distractors and, for their credits, of exemplars.
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
    """Exemplars, without images, of the sets that are shown: object sets first."""
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
    """Images of the customized models by set, of those that were sampled.

    Each row also has its control's query_id and prompt as `control_id` and
    `control_prompt`, None where the run has no such image.
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
    """Rows of the soft scores by query, best first: the top ones and every exemplar."""
    top = (ds.field("rank") <= retrievals) | ds.field("is_exemplar")
    table = ds.dataset(path).to_table(filter=ds.field("query_id").isin(pa.array(queries, pa.string())) & top)
    found: dict[str, list[Row]] = {name: [] for name in queries}
    for row in sorted(
        table.to_pylist(), key=lambda row: (row["rank"], not row["is_exemplar"], row["candidate_id"])
    ):
        found[row["query_id"]].append(row)
    missing = [name for name, rows in found.items() if not rows]
    if missing:
        raise InputError(
            f"{path}: no rows for the query {missing[0]!r}; expected every customized test query"
        )
    return found
