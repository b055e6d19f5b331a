"""`abc calibrate`, held to plain float64 sums over the whole pool."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from released_fixtures import KINDS, Release, mappers, release, unit
from test_calibration import dense_shares
from test_calibration_forms import condensed, plain

from attrib_core import calibration, tables
from attrib_core.__main__ import main
from attrib_core.calibration import Parameters
from attrib_core.released import calibrate_command, soft_influence
from attrib_core.released.cases import read_test
from attrib_core.released.mappers import UNTUNED
from attrib_core.released.stored import open_pool

SIZES = [1, 1, 3, 5, 2, 1, 4]
ROWS, DIM = 900, 24


def cases() -> tuple[Release, Release]:
    """Test cases to fit on and to judge on, of one pool."""
    fitted, test = (release(seed, rows=ROWS, dim=DIM, sizes=SIZES, each=3, signal=0.6) for seed in (1, 2))
    test.pool = fitted.pool
    return fitted, test


def write(folder: Path) -> tuple[Release, Release, list[str]]:
    """The cases, and the options that name their files."""
    fitted, test = cases()
    first, second = fitted.write(folder / "clip", name="val_x"), test.write(folder / "clip", name="test_x")
    files = ["--pool", str(first["pool"]), "--fit", str(first["test"]), "--test", str(second["test"])]
    return fitted, test, files


def run(files: list[str], out: Path, *options: str) -> int:
    return main(["abc", "calibrate", *files, "--out", str(out), "--bootstrap", "20", *options])


def cosines(case: Release, kind: str, heads: list[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each query: those to its exemplars, and to the pool."""
    pool, exemplars = unit(case.pool, heads[0]), unit(case.exemplars, heads[0])
    queries = zip(unit(case.queries[kind], heads[1]), case.models[kind], strict=True)
    return [(exemplars[slice(*case.chunks[model])] @ query, pool @ query) for query, model in queries]


@pytest.mark.parametrize("mapper", ["untuned", "linear", "mlp"])
def test_metrics_are_those_of_sums_over_the_whole_pool(mapper: str, tmp_path: Path) -> None:
    _, test, files = write(tmp_path)
    heads, checkpoint = mappers(mapper, DIM, tmp_path)
    options = ["--bins", "65536", *(["--mapper", str(checkpoint)] if checkpoint else [])]
    assert run(files, tmp_path / "out", *options) == 0
    forms = json.loads((tmp_path / "out" / "calibrator.json").read_text())["forms"]
    rows = tables.read(tmp_path / "out" / "calibration.parquet", "abc_calibration").to_pylist()
    found = {
        (r["prompt_kind"], r["form"], r["metric"]): r
        for r in rows
        if (r["kind"], r["pool_share"]) == ("all", 1.0)
    }
    for kind in KINDS:
        for form, about in forms.items():
            sums: dict[str, list[float]] = {name: [] for name in ("nll", "brier", "mass", "none")}
            for own, others in cosines(test, kind, heads):
                if form == "pool_aware":
                    share, none = plain(own, others, Parameters(**about["parameters"]["style"]), 0.5)
                else:
                    share, none = dense_shares(own, others, about["tau"], about["bias"]), 0.0
                truth = np.repeat([1 / len(own), 0], [len(own), len(others)])
                with np.errstate(divide="ignore"):
                    sums["nll"].append(-np.log(share[: len(own)]).mean())
                sums["brier"].append(((share - truth) ** 2).sum())
                sums["mass"].append(share[: len(own)].sum())
                sums["none"].append(none)
            names = ("negative_log_likelihood", "brier", "exemplar_mass", "none_mass")
            for metric, values in zip(names, sums.values(), strict=True):
                row = found[kind, form, metric]
                assert row["value"] == pytest.approx(np.mean(values), rel=2e-3, abs=1e-6)
                assert (row["n_queries"], row["n_models"]) == (3 * len(SIZES), len(SIZES))


def test_the_fit_is_that_on_plain_cosines(tmp_path: Path) -> None:
    fitted, _, files = write(tmp_path)
    assert run(files, tmp_path / "out", "--bins", "65536") == 0
    evidence = [
        replace(condensed(own, others, bins=65536), sets=[f"{model}"], kinds=["style"])
        for kind in KINDS
        for (own, others), model in zip(cosines(fitted, kind, [None, None]), fitted.models[kind], strict=True)
    ]
    forms = json.loads((tmp_path / "out" / "calibrator.json").read_text())
    assert forms["fitted_on"]["queries"] == len(evidence) and forms["fitted_on"]["distractors"] == ROWS
    assert (forms["encoder"], forms["mapper"]) == ("clip", "untuned")
    for form in calibration.FORMS:
        expected = calibration.fit_form(form, evidence, 0.5).description
        mine = forms["forms"][form]
        if form == "pool_aware":
            expected, mine = expected["parameters"]["style"], mine["parameters"]["style"]
            assert mine == pytest.approx(expected, rel=1e-3)
        else:
            assert (mine["tau"], mine["bias"]) == pytest.approx(
                (expected["tau"], expected["bias"]), rel=1e-2, abs=1e-6
            )


def test_ranking_hangs_on_no_block(tmp_path: Path) -> None:
    _, case, files = write(tmp_path)
    pool, test = open_pool(Path(files[1])), read_test(Path(files[5]))

    def ranked(name: str, **options: Any) -> list[soft_influence.Ranked]:
        (tmp_path / name).mkdir()
        labels = {"encoder": "e", "mapper": "m"}
        return list(
            soft_influence.rank(
                pool, test, ["style"] * len(SIZES), tmp_path / name, mapper=UNTUNED, labels=labels, top_k=7,
                bins=64, **options,
            )
        )  # fmt: skip

    whole, cut = ranked("whole"), ranked("cut", query_group=4, pool_block=37)
    for one, other, kind in zip(whole, cut, KINDS, strict=True):
        assert one.ranks.equals(other.ranks)
        assert pq.read_table(one.candidates).equals(pq.read_table(other.candidates))
        above = [
            int(np.count_nonzero(others > value + 1e-9))
            for own, others in cosines(case, kind, [None, None])
            for value in own
        ]
        assert one.ranks["n_above"].to_pylist() == above


def test_the_pool_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """Memory that Python and NumPy take in a pass over a file of 32 MB, read 1 MB at a time."""
    case = release(1, rows=1, dim=256, sizes=[1], each=1)
    case.write(tmp_path)
    np.save(tmp_path / "pool.npy", np.random.default_rng(0).standard_normal((32768, 256), np.float32))
    pool, test = open_pool(tmp_path / "pool.npy"), read_test(tmp_path / "test_case.pth")
    options: dict[str, Any] = {"mapper": UNTUNED, "labels": {"encoder": "e", "mapper": "m"}}
    tracemalloc.start()
    list(soft_influence.rank(pool, test, ["style"], tmp_path, top_k=9, bins=64, pool_block=1024, **options))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * 2**20


def test_a_published_checkpoint_is_written_and_read_back(tmp_path: Path) -> None:
    _, _, files = write(tmp_path)
    assert run(files, tmp_path / "out") == 0
    checkpoint = tmp_path / "out" / "calibrator.pth"
    content = torch.load(checkpoint, weights_only=True)
    assert {key: tuple(value.shape) for key, value in content.items()} == {"inv_tau": (), "bias": ()}
    assert run([*files[:2], *files[4:]], tmp_path / "again", "--calibrator", str(checkpoint)) == 0
    values = []
    for name, form in (("out", "published"), ("again", "released")):
        rows = tables.read(tmp_path / name / "calibration.parquet", "abc_calibration").to_pylist()
        values.append([r["value"] for r in rows if r["form"] == form])
    np.testing.assert_allclose(*values, rtol=1e-4)
    assert not (tmp_path / "again" / "calibrator.json").exists()
    torch.save({"inv_tau": torch.tensor([20.0]), "bias": torch.tensor([-50.0])}, tmp_path / "theirs.pth")
    assert run(files, tmp_path / "beside", "--calibrator", str(tmp_path / "theirs.pth")) == 0
    rows = tables.read(tmp_path / "beside" / "calibration.parquet", "abc_calibration").to_pylist()
    assert {r["form"] for r in rows} == {*calibration.FORMS, "released"}


def test_a_fitted_file_judges_as_the_fit_itself_and_takes_another_assumption(tmp_path: Path) -> None:
    _, _, files = write(tmp_path)
    assert run(files, tmp_path / "out") == 0
    given = [*files[:2], *files[4:], "--calibrator", str(tmp_path / "out" / "calibrator.json")]
    assert run(given, tmp_path / "again") == 0
    one, other = (pq.read_table(tmp_path / name / "calibration.parquet") for name in ("out", "again"))
    assert one.equals(other)
    assert run(given, tmp_path / "rare", "--absent-share", "0.01") == 0
    rows = [pq.read_table(tmp_path / name / "calibration.parquet").to_pylist() for name in ("out", "rare")]
    masses = [
        [r["value"] for r in some if (r["form"], r["metric"]) == ("pool_aware", "none_mass")] for some in rows
    ]
    assert all(rare < even for even, rare in zip(*masses, strict=True))


def test_soft_scores_are_the_top_of_the_whole_ranking(tmp_path: Path) -> None:
    _, test, files = write(tmp_path)
    assert (
        run(files, tmp_path / "out", "--soft-scores", "--top-k", "9", "--forms", "published", "pool_aware")
        == 0
    )
    table = tables.read(tmp_path / "out" / "soft_scores.parquet", "soft_scores")
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["query_id"], []).append(row)
    assert len(rows) == 2 * 3 * len(SIZES) and {r["encoder"] for r in table.to_pylist()} == {"clip"}
    about = json.loads((tmp_path / "out" / "calibrator.json").read_text())["forms"]["published"]
    for kind in KINDS:
        for number, (own, others) in enumerate(cosines(test, kind, [None, None])):
            found = rows[f"test_x/{kind}/{number}"]
            start = test.chunks[test.models[kind][number]][0]
            names = [*(f"dataset/exemplar/{start + i}.png" for i in range(len(own)))]
            names += [f"laion/{i}.jpg" for i in range(ROWS)]
            order = np.argsort(-np.concatenate([own, others]))
            share = dense_shares(own, others, about["tau"], about["bias"])
            best = {names[i]: share[i] for i in order if i < len(own)}
            best |= {names[i]: share[i] for i in [j for j in order if j >= len(own)][:9]}
            assert {row["candidate_id"] for row in found} == set(best)
            for row in found:
                assert row["influence"] == pytest.approx(best[row["candidate_id"]], rel=5e-2, abs=1e-6)
                assert row["is_exemplar"] == row["candidate_id"].startswith("dataset")


def test_queries_to_fit_on_are_drawn_by_model(tmp_path: Path) -> None:
    _, _, files = write(tmp_path)
    assert run(files, tmp_path / "out", "--fit-queries", "2", "--forms", "published") == 0
    about = json.loads((tmp_path / "out" / "calibrator.json").read_text())["fitted_on"]
    assert (about["queries"], about["exemplar_sets"]) == (2 * 2 * len(SIZES), len(SIZES))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "calibration.parquet", "calibrator.json", "calibrator.pth", "reliability.parquet",
    ]  # fmt: skip


def test_kinds_come_from_the_json_where_there_is_one(tmp_path: Path) -> None:
    _, _, files = write(tmp_path)
    folder = tmp_path / "clip"
    options = ["--fit-cases", str(folder / "val_x.json"), "--cases", str(folder / "test_x.json")]
    assert run(files, tmp_path / "out", *options) == 0
    about = json.loads((tmp_path / "out" / "calibrator.json").read_text())
    assert (
        about["fitted_on"]["kinds"]
        == ["object", "style"]
        == sorted(about["forms"]["pool_aware"]["parameters"])
    )
    rows = tables.read(tmp_path / "out" / "calibration.parquet", "abc_calibration").to_pylist()
    assert {row["kind"] for row in rows} == {"object", "style", "all"}
    bins = tables.read(tmp_path / "out" / "reliability.parquet", "abc_reliability").to_pylist()
    assert {row["judged"] for row in bins} == {"shares", "displayed"}


def test_the_forms_of_the_command_line_are_those_there_are() -> None:
    assert calibrate_command.FORMS == calibration.FORMS
    assert calibrate_command.BAD_ROWS == soft_influence.BAD_ROWS


def spoilt(case: Release, rows: dict[str, list[int]]) -> Release:
    """The case with vectors that have no direction among its pool, exemplars and queries of one prompt kind."""
    made = replace(case, pool=case.pool.copy(), exemplars=case.exemplars.copy())
    made.pool[rows["pool"][:2]], made.pool[rows["pool"][2:]] = np.nan, 0
    made.exemplars[rows["exemplars"]] = np.inf
    made.queries = {kind: values.copy() for kind, values in case.queries.items()}
    made.queries[KINDS[0]][rows["queries"]] = 0
    return made


def test_rows_without_a_direction_are_left_out_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if they had never stood in the files: pool rows, an exemplar of several, a model's only one, queries."""
    fitted, test, _ = write(tmp_path / "clean")
    gone = {
        "pool": [3, 4, 800],
        "exemplars": [1, 3],
        "queries": [0, 5],
    }  # exemplar 1 is the only one of model 1
    assert test.chunks[1] == (1, 2) and test.chunks[2] == (2, 5)
    broken = spoilt(test, gone)
    first = replace(fitted, pool=broken.pool).write(tmp_path / "bad", name="val_x")
    second = broken.write(tmp_path / "bad", name="test_x")
    files = ["--pool", str(first["pool"]), "--fit", str(first["test"]), "--test", str(second["test"])]
    assert run(files, tmp_path / "refused") == 2
    assert "with --bad-rows drop such rows are left out" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists() or not list((tmp_path / "refused").iterdir())
    assert run(files, tmp_path / "out", "--bad-rows", "drop", "--soft-scores") == 0
    told = capsys.readouterr()
    assert f"pool of {ROWS - 3} (" in told.out
    assert f"3 of {ROWS} rows of the pool have no direction and are left out" in told.err
    assert f"2 of {sum(SIZES)} exemplars of test_x have no direction" in told.err

    forms = json.loads((tmp_path / "out" / "calibrator.json").read_text())["forms"]
    published = [forms["published_whole_pool"][name] for name in ("tau", "bias")]
    rest = np.delete(unit(test.pool, None), gone["pool"], axis=0)
    exemplars = unit(test.exemplars, None)
    rows = pq.read_table(tmp_path / "out" / "calibration.parquet").to_pylist()
    for kind in KINDS:
        losses = []
        for number, (query, model) in enumerate(
            zip(unit(test.queries[kind], None), test.models[kind], strict=True)
        ):
            own = [row for row in range(*test.chunks[model]) if row not in gone["exemplars"]]
            if not own or (kind == KINDS[0] and number in gone["queries"]):
                continue
            share = dense_shares(exemplars[own] @ query, rest @ query, *published)
            losses.append(-np.log(share[: len(own)]).mean())
        found = next(
            row for row in rows
            if (row["prompt_kind"], row["form"], row["kind"], row["metric"])
            == (kind, "published_whole_pool", "all", "negative_log_likelihood")
        )  # fmt: skip
        assert found["n_queries"] == len(losses) and found["value"] == pytest.approx(
            np.mean(losses), abs=1e-3
        )
    shown = pq.read_table(tmp_path / "out" / "soft_scores.parquet")["candidate_id"].unique().to_pylist()
    assert not {f"{row}.jpg" for row in gone["pool"]} & set(shown)


def test_whole_blocks_of_the_pool_may_be_left_out(tmp_path: Path) -> None:
    _, test = cases()
    pool = test.pool.copy()
    pool[:200], test.pool = np.nan, test.pool[200:]
    paths = [
        replace(test, pool=one).write(tmp_path / name) for name, one in (("bad", pool), ("good", test.pool))
    ]
    found = []
    for number, path in enumerate(paths):
        case, folder = read_test(path["test"]), tmp_path / f"folder{number}"
        folder.mkdir()
        how = {"mapper": UNTUNED, "labels": {"encoder": "e", "mapper": "m"}, "top_k": 5, "bins": 64}
        kinds = ["style"] * len(SIZES)
        ranked = soft_influence.rank(
            open_pool(path["pool"]), case, kinds, folder, **how, bad_rows="drop", pool_block=100
        )
        found.append([one.ranks for one in ranked])
    assert all(one.equals(other) for one, other in zip(*found, strict=True))


def test_a_pool_without_any_direction_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, test, files = write(tmp_path)
    np.save(tmp_path / "zeros.npy", 0 * test.pool)
    assert run([*files, "--pool", str(tmp_path / "zeros.npy")], tmp_path / "out", "--bad-rows", "drop") == 2
    assert f"none of {ROWS} rows has a direction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--forms", "published", "published"], ["--forms", "each once"]),
        (["--absent-share", "1"], ["--absent-share: 1", "less than 1"]),
        (["--pool-shares", "0"], ["--pool-shares", "above 0"]),
        (["--bootstrap", "0"], ["--bootstrap: 0"]),
        (["--top-k", "0"], ["--top-k: 0"]),
        (["--bins", "1"], ["--bins: 1"]),
        (["--fit-queries", "0"], ["--fit-queries: 0"]),
        (["--cases", "a.json", "b.json"], ["--cases", "2 files", "1 of --test"]),
        (["--fit-cases", "a.json", "b.json"], ["--fit-cases", "2 files", "1 of --fit"]),
        (["--fit", "TEST"], ["'test_x'", "other models"]),
        (["--calibrator", "none.json"], ["none.json", "no such file"]),
        (["--calibrator", "none.txt"], ["none.txt", ".pth"]),
        (["--calibrator", "state.pth"], ["state.pth", "inv_tau", "expected a state dict"]),
        (["--calibrator", "cold.pth"], ["cold.pth: inv_tau is 0", "more than 0"]),
        (["--calibrator", "wide.pth"], ["wide.pth: bias", "one finite number"]),
        (["--calibrator", "odd.json"], ["odd.json", "'published'", "'tau'"]),
        (["--calibrator", "low.json"], ["low.json", "above 0"]),
        (["--calibrator", "good.json"], ["good.json", "--fit alone"]),
        (["--pool", "nan.npy"], ["nan.npy", "row 1", "NaN", "direction; with --bad-rows drop"]),
        (["--pool", "other.npy"], ["24 dimensions", "has 7", "one encoder"]),
        (["--test", "plain.pth"], ["plain.pth", "gpt", "--cases"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    options: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, test, files = write(tmp_path)
    one = torch.tensor(1.0)
    torch.save({"inv_tau": one}, tmp_path / "state.pth")
    torch.save({"inv_tau": 0 * one, "bias": one}, tmp_path / "cold.pth")
    torch.save({"inv_tau": one, "bias": torch.ones(2)}, tmp_path / "wide.pth")
    for name, about in (
        ("odd", {"bias": 1}),
        ("low", {"tau": -1, "bias": 0}),
        ("good", {"tau": 1, "bias": 0}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({"forms": {"published": about}}))
    np.save(tmp_path / "nan.npy", np.where(np.arange(ROWS)[:, None] == 1, np.nan, test.pool))
    np.save(tmp_path / "other.npy", np.ones((5, 7), np.float32))
    content = test.content()
    for key in ("synth_paths", "synth_ids", "synth_tensors"):
        content[key] = {"gpt": content[key]["gpt"]}
    torch.save(content, tmp_path / "plain.pth")
    here = [str(tmp_path / one) if (tmp_path / one).is_file() or "none." in one else one for one in options]
    here = [files[5] if one == "TEST" else one for one in here]
    assert run(files, tmp_path / "out", *here) == 2
    line = capsys.readouterr().err
    messages = [text for text in line.splitlines() if not text.startswith("[abc calibrate]")]
    assert len(messages) == 1 and all(word in line for word in words), line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_models_of_the_fit_are_not_judged_under_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, files = write(tmp_path)
    content = torch.load(files[3], weights_only=True)
    content["exemplar_tensors"] = content["exemplar_tensors"].clone()
    content["exemplar_tensors"][:2] += 1  # models 0 and 1 are others, model 2 is not
    copy = tmp_path / "clip" / "test_copy.pth"
    torch.save(content, copy)
    assert run([*files[:5], str(copy)], tmp_path / "out") == 2
    assert "test_copy/000002 has the exemplars of val_x/000002" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_to_fit_on_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, files = write(tmp_path)
    assert run([*files[:2], *files[4:]], tmp_path / "out") == 2
    assert "--fit: missing" in capsys.readouterr().err
