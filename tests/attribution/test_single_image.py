"""Attribution of single images by a finished run against NumPy and the soft scores of the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.csv
import pytest
from PIL import Image

from attrib_core.attribution.calibration import calibrate
from attrib_core.attribution.ranking import rank
from attrib_core.attribution.single_image import attribute
from attrib_core.attribution.single_image import finished_run as runs
from attrib_core.cli import attribute as command
from attrib_core.cli.main import main
from attrib_core.features.embedding import embedding_tables, encode
from attrib_core.features.encoders import pixel
from attrib_core.features.heads import heads
from attrib_core.runtime import job_records
from attrib_core.storage import run_layout, tables
from tests.report.report_fixtures import write_run

SECTION = {"family": "pixel", "size": 4}
SETTINGS = {"top_k": 100, "bins": 64}
MAPPERS = ("untuned", "linear-object")
TOP = 100  # all candidates: nothing is in a histogram
FinishedRun = tuple[Path, str, Path]


def record(run: Path, rule: str, wildcards: dict[str, str], params: dict[str, Any]) -> None:
    content = dict(rule=rule, wildcards=wildcards, params=params, inputs=[], outputs={})
    tables.write_json(job_records.record_path(run, rule, wildcards), content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A finished run with pixel embeddings, a query of its test split, and the image of the query."""
    run = tmp_path_factory.mktemp("attribution") / "made"
    write_run(run, pool=40, object_sets=7, style_sets=4, prompts_each=1, samples_each=1, encoders=("pixel",))
    encoder = pixel.load(size=4)
    embedded = run / "embeddings/pixel"
    files = [(path, f"pool/{path.name}", "image_id") for path in sorted(run.glob("pool/part-*"))]
    files += [(path, f"queries/{path.name}", "query_id") for path in sorted(run.glob("synthesized/part-*"))]
    for source, target, ids in [*files, (run / "exemplars.parquet", "exemplars.parquet", "exemplar_id")]:
        with tables.writer(embedded / target, embedding_tables.schema(encoder)) as sink:
            for chunk in encode.encode_table(source, id_column=ids, encoder=encoder):
                sink.write(tables.embedding_table(*chunk))
    rng = np.random.default_rng(3)
    turned = [(np.eye(48) + 0.05 * rng.standard_normal((48, 48))).astype(np.float32) for _ in range(2)]
    both = heads.Heads(*(heads.Linear(one, np.zeros(48, np.float32)) for one in turned))
    path = run / "mappers/pixel/linear-object.safetensors"
    heads.save(path, both, {})
    for mapper, own in zip(MAPPERS, (heads.load(None), both), strict=True):
        _rank_and_calibrate(run, mapper, own)
    record(run, "report", {}, {"encoders": ["pixel"], "mappers": [*MAPPERS, "linear-style"]})
    record(run, "embed_pool_part", {"encoder": "pixel", "part": "0000"}, {"encoder": SECTION})
    (run / "report").mkdir()
    (run / "report/index.html").write_text("<html></html>")
    soft = tables.read(run / "calibration/pixel/linear-object/soft_scores.parquet", "soft_scores")
    query = soft["query_id"][0].as_py()
    for part in sorted(run.glob("synthesized/part-*")):
        for row in tables.read(part, "synthesized").to_pylist():
            if row["query_id"] == query:
                (run / "query.png").write_bytes(row["image"]["bytes"])
    return run, query, run / "query.png"


def _rank_and_calibrate(run: Path, mapper: str, own: heads.Heads) -> None:
    embedded = run / "embeddings/pixel"
    parts = sorted(run.glob("synthesized/queries-*"))
    ranked = list(
        rank.rank(
            encoder="pixel",
            mapper=mapper,
            heads=own,
            pool=sorted(embedded.glob("pool/part-*")),
            queries=sorted(embedded.glob("queries/part-*")),
            exemplars=embedded / "exemplars.parquet",
            excluded=tables.read(run / "excluded.parquet", "excluded", ["image_id"]),
            query_rows=tables.read_parts(parts, "queries", rank.QUERY_COLUMNS),
            exemplar_rows=tables.read(run / "exemplars.parquet", "exemplars", rank.EXEMPLAR_COLUMNS),
            **SETTINGS,
        )
    )
    candidates = run / f"candidates/pixel/{mapper}.parquet"
    tables.write(candidates, "candidates", ranked[0].candidates)
    folder = run / "calibration/pixel" / mapper
    with tables.writer(folder / "soft_scores.parquet", tables.schema("soft_scores")) as sink:
        done = calibrate.calibrate(
            ranks=ranked[0].ranks,
            candidates=candidates,
            exemplars=tables.read(run / "exemplars.parquet", "exemplars", calibrate.EXEMPLAR_COLUMNS),
            save=sink.write,
            kinds=["object"] if mapper == "linear-object" else None,
            shown=TOP,
            forms=["pool_aware"],
        )
    tables.write_json(folder / "calibrator.json", done.calibrator)
    tables.write(folder / "calibration.parquet", "calibration", done.calibration)
    wildcards = {"encoder": "pixel", "mapper": mapper}
    record(run, "rank", wildcards, {"settings": SETTINGS})
    record(run, "calibrate", wildcards, {"settings": {"forms": ["pool_aware"]}})


def test_candidates_are_those_of_plain_cosines(finished: FinishedRun) -> None:
    folder, _, image = finished
    run = runs.open_run(folder)
    features = runs.Features("object", "pixel", "linear-object")
    vectors = attribute.embed([image], run.encoder("pixel"))
    rows, searched = attribute.attribute(run, features, vectors, [image], top=20)
    own = run.heads(features)
    ids, pool = zip(*(embedding_tables.read(path) for path in run.pool("pixel")), strict=True)
    names = np.array([name for some in ids for name in some])
    assert own.real_head is not None and own.synth_head is not None
    real, synth = np.concatenate(pool) @ own.real_head.weight.T, vectors[0] @ own.synth_head.weight.T
    exemplars = set(tables.read(folder / "exemplars.parquet", "exemplars")["image_id"].to_pylist())
    excluded = set(tables.read(folder / "excluded.parquet", "excluded")["image_id"].to_pylist())
    kept = np.array([name in exemplars or name not in excluded for name in names])
    lengths = np.linalg.norm(real, axis=1) * np.linalg.norm(synth)
    cosines = (real @ synth / lengths)[kept]
    order = np.argsort(-cosines)[:20]
    assert [row["image_id"] for row in rows] == names[kept][order].tolist()
    np.testing.assert_allclose([row["similarity"] for row in rows], cosines[order], atol=2e-6)
    assert [row["rank"] for row in rows] == list(range(1, 21))
    assert searched == (kept.sum() - len(exemplars), len(exemplars), (~kept).sum())
    assert {row["is_exemplar"] for row in rows} == {True, False}
    assert {row["attribution"] for row in rows} == {"OpenMoji, https://openmoji.org"}


@pytest.mark.parametrize("mapper", MAPPERS)
def test_a_query_of_the_run_gets_the_influence_of_its_soft_scores(finished: FinishedRun, mapper: str) -> None:
    folder, query, image = finished
    run = runs.open_run(folder)
    features = runs.Features("object", "pixel", mapper)
    soft = tables.read(run.calibration(features, run_layout.SOFT_SCORES), "soft_scores").to_pylist()
    soft = [row for row in soft if row["query_id"] == query]
    exemplars = tables.read(folder / "exemplars.parquet", "exemplars").to_pylist()
    row_of = {row["exemplar_id"]: row["image_id"] for row in exemplars}
    own = {row_of[row["candidate_id"]] for row in soft if row["is_exemplar"]}
    vectors = attribute.embed([image], run.encoder("pixel"))
    without = run.excluded_rows() - own  # the candidates of this query have its own exemplars only
    found = list(attribute.candidates(run, features, vectors, names=["query"], without=without))
    rows = attribute.shares(run, features, found[0], top=TOP).to_pylist()
    expected = {row_of.get(row["candidate_id"], row["candidate_id"]): row for row in soft}
    assert {row["candidate_id"] for row in rows} == set(expected) and own
    for row in rows:
        of_run = expected[row["candidate_id"]]
        assert row["similarity"] == of_run["similarity"]
        assert row["influence"] == pytest.approx(of_run["influence"], rel=1e-9)
        assert row["none"] == pytest.approx(of_run["none"], rel=1e-9)


def test_other_images_and_blocks_change_nothing(finished: FinishedRun) -> None:
    folder, _, image = finished
    run = runs.open_run(folder)
    features = runs.Features("style", "pixel", "untuned")
    vectors = np.repeat(attribute.embed([image], run.encoder("pixel")), 3, axis=0)
    vectors[1:] += np.random.default_rng(0).normal(0, 0.1, (2, 48)).astype(np.float32)
    together = next(attribute.candidates(run, features, vectors, names=["a", "b", "c"], without=()))
    cut = attribute.candidates(
        run, features, vectors, names=["a", "b", "c"], without=(), query_group=2, pool_block=7
    )
    assert [row for table in cut for row in table.to_pylist()] == together.to_pylist()
    shares = attribute.shares(run, features, together, top=5).to_pylist()
    alone = attribute.shares(run, features, together.slice(1, 1), top=5).to_pylist()
    assert [row for row in shares if row["query_id"] == "b"] == alone


def test_the_command_prints_a_line_a_candidate_and_writes_a_table(
    finished: FinishedRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, _, image = finished
    call = ["attribute", str(image), str(image), "--run", str(folder), "--mapper", "untuned", "--top", "3"]
    assert main([*call, "--out", str(tmp_path / "a.parquet")]) == 0
    out = capsys.readouterr().out
    rows = tables.read(tmp_path / "a.parquet", "attributions").to_pylist()
    assert len(rows) == 2 * 2 * 3  # kinds, images, candidates
    assert rows[:3] == rows[3:6]
    for row in rows:
        assert row["image_id"] in out and row["caption"] in out
    assert out.count("none of these") >= 4 and out.count("another generator is outside") == 2
    assert main([*call, "--kind", "object", "--out", str(tmp_path / "a.csv")]) == 0
    assert pyarrow.csv.read_csv(tmp_path / "a.csv").column("image_id").to_pylist() == [
        row["image_id"] for row in rows[:6]
    ]
    assert main(["attribute", str(image), "--run", str(folder), "--kind", "object"]) == 0
    assert "encoder pixel, mapper " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "pixle"], "--encoder: 'pixle' is none of"),
        (["--encoder", "pixle"], "did you mean 'pixel'?"),
        (["--mapper", "linear-objekt"], "did you mean 'linear-object'"),
        (["--mapper", "linear-object", "--kind", "style"], "'linear-object' is for object sets, not"),
        (["--top", "101"], "--top: 101, expected 1 to 100"),
        (["--out", "a.txt"], "--out: a.txt, expected a name that ends in .parquet or .csv"),
        (["--run", "nowhere"], "--run: nowhere: no such folder"),
        (["--run", "{empty}"], "expected a finished run"),
        (["{broken}"], "7 bytes are no image that can be read, but text ('nothing')"),
        (["{black}"], "black.png: blank: every pixel is black (0, 0, 0), as a safety checker leaves it"),
        (
            ["{clear}"],
            "clear.png: blank: every pixel is white (255, 255, 255), transparency is laid over white",
        ),
        (["missing.png"], "missing.png: No such file or directory; expected the file of an image"),
    ],
)
def test_mistakes_are_one_line(
    finished: FinishedRun,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    folder, _, image = finished
    broken, empty = tmp_path / "broken.png", tmp_path / "empty"
    black, clear = tmp_path / "black.png", tmp_path / "clear.png"
    Image.new("RGB", (64, 64)).save(black)
    Image.new("RGBA", (64, 64)).save(clear)
    broken.write_bytes(b"nothing")
    empty.mkdir()
    given = [option.format(broken=broken, empty=empty, black=black, clear=clear) for option in options]
    images = given if not given[0].startswith("--") else [str(image)]
    options = given if given[0].startswith("--") else []
    assert main(["attribute", *images, "--run", str(folder), "--mapper", "untuned", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_encoder_that_differs_from_the_stored_one_is_refused(
    finished: FinishedRun, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    shutil.copytree(finished[0], folder)
    params = {"encoder": {**SECTION, "size": 5}}
    record(folder, "embed_pool_part", {"encoder": "pixel", "part": "0000"}, params)
    with pytest.raises(ValueError, match=r"identity\.dim 48 in the file, 75 here"):
        runs.open_run(folder).encoder("pixel")


def test_an_encoder_of_text_needs_a_prompt_and_reads_it_without_the_token(finished: FinishedRun) -> None:
    class Lengths:
        reads = "text"
        dim = 1
        identity = {"family": "lengths"}

        def encode(self, inputs: Any) -> np.ndarray:
            return np.array([[len(words)] for words in inputs], np.float32)

    with pytest.raises(ValueError, match="--prompt: the encoder reads text alone"):
        attribute.embed([finished[2]], Lengths())
    assert attribute.embed([finished[2]], Lengths(), prompt="a <new1> cat").tolist() == [[len("a cat")]]


def test_long_captions_are_cut_on_the_terminal_alone(finished: FinishedRun) -> None:
    run = runs.open_run(finished[0])
    (features,) = runs.choose_features(run, kind="object", encoder="pixel", mapper="untuned")
    embedded = attribute.embed([finished[2]], run.encoder("pixel"))
    rows, searched = attribute.attribute(run, features, embedded, [finished[2]], top=2)
    long = "word\n" * 3000
    changed = [{**row, "caption": long, "licence": "a\x1b[2Jb", "attribution": None} for row in rows]
    shown = list(command.lines(features, searched, changed))
    assert len(shown) == 6 and all(len(line) < 300 and line.isprintable() for line in shown)
    assert shown[3].endswith("  " + "word " * 15 + "word…  -  a\\x1b[2Jb") and changed[0]["caption"] == long


def test_a_prompt_that_is_not_utf8_is_refused(finished: FinishedRun) -> None:
    with pytest.raises(ValueError, match=r"--prompt: character 4 is a byte that is not UTF-8"):
        attribute.embed([finished[2]], SimpleNamespace(reads="text"), prompt="caf\udce9")
