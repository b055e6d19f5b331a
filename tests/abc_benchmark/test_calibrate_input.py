"""`abc calibrate`: bad input, rows without a direction, files of an earlier call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attrib_core.abc_benchmark import calibrate, calibrator_files
from attrib_core.abc_benchmark.feature_files import open_pool
from attrib_core.abc_benchmark.mapper_files import UNTUNED
from attrib_core.abc_benchmark.test_cases import read_test
from attrib_core.attribution.calibration.published_form import PublishedCalibrator
from attrib_core.common.errors import InputError
from tests.abc_benchmark.abc_fixtures import KINDS, AbcCase, unit
from tests.abc_benchmark.calibrate_fixtures import ROWS, SIZES, cases, run_calibrate, write_cases
from tests.attribution.calibration_fixtures import published_shares


def test_bad_rows_must_be_one_of_the_choices(tmp_path: Path) -> None:
    _, _, files = write_cases(tmp_path)
    with pytest.raises(InputError, match="--bad-rows: 'last', expected one of refuse, drop"):
        calibrate.count_distractors(open_pool(Path(files[1])), UNTUNED, "last")


def test_no_file_of_an_earlier_call_stays_next_to_new_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, files = write_cases(tmp_path)
    judging, out = [*files[:2], *files[4:]], tmp_path / "out"
    assert run_calibrate(files, out, "--soft-scores", "--forms", "published") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    own = ["--calibrator", str(out / "calibrator.json")]
    for given, options, left in (
        (files, ["--forms", "published"], "soft_scores.parquet"),
        (files, ["--soft-scores", "--forms", "pool_aware"], "calibrator.pth"),
        (judging, ["--soft-scores", *own], "calibrator.pth"),
    ):
        assert run_calibrate(given, out, *options) == 2
        assert f"--out: {out / left} is of an earlier call" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "calibrator.pth").unlink()
    assert (
        run_calibrate(judging, out, "--soft-scores", *own) == 0
    )  # the calibrator that is evaluated is not stale


def add_bad_rows(case: AbcCase, rows: dict[str, list[int]]) -> AbcCase:
    """Return the case with bad vectors among its pool, exemplars and queries of one prompt kind."""
    bad = replace(case, pool=case.pool.copy(), exemplars=case.exemplars.copy())
    bad.pool[rows["pool"][:2]], bad.pool[rows["pool"][2:]] = np.nan, 0
    bad.exemplars[rows["exemplars"]] = np.inf
    bad.queries = {kind: values.copy() for kind, values in case.queries.items()}
    bad.queries[KINDS[0]][rows["queries"]] = 0
    return bad


def test_bad_rows_are_left_out_with_that_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As if they were not in the files: pool rows, one of several exemplars, the only one of a model, queries."""
    fitted, test, _ = write_cases(tmp_path / "clean")
    gone = {
        "pool": [3, 4, 800],
        "exemplars": [1, 3],
        "queries": [0, 5],
    }  # exemplar 1 is the only one of model 1
    assert test.chunks[1] == (1, 2) and test.chunks[2] == (2, 5)
    broken = add_bad_rows(test, gone)
    first = replace(fitted, pool=broken.pool).write(tmp_path / "bad", name="val_x")
    second = broken.write(tmp_path / "bad", name="test_x")
    files = ["--pool", str(first["pool"]), "--fit", str(first["test"]), "--test", str(second["test"])]
    assert run_calibrate(files, tmp_path / "refused") == 2
    assert "with --bad-rows drop such rows are left out" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists() or not list((tmp_path / "refused").iterdir())
    assert run_calibrate(files, tmp_path / "out", "--bad-rows", "drop", "--soft-scores") == 0
    shown = capsys.readouterr()
    assert f"pool of {ROWS - 3} (" in shown.out
    assert f"3 of {ROWS} rows of the pool have no direction and are left out" in shown.err
    assert f"2 of {sum(SIZES)} exemplars of test_x have no direction" in shown.err

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
            share = published_shares(exemplars[own] @ query, rest @ query, *published)
            losses.append(-np.log(share[: len(own)]).mean())
        found = next(
            row for row in rows
            if (row["prompt_kind"], row["form"], row["kind"], row["metric"])
            == (kind, "published_whole_pool", "all", "negative_log_likelihood")
        )  # fmt: skip
        assert found["n_queries"] == len(losses) and found["value"] == pytest.approx(
            np.mean(losses), abs=1e-3
        )
    listed = pq.read_table(tmp_path / "out" / "soft_scores.parquet")["candidate_id"].unique().to_pylist()
    assert not {f"{row}.jpg" for row in gone["pool"]} & set(listed)


def test_a_block_of_the_pool_may_have_only_bad_rows(tmp_path: Path) -> None:
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
        ranked = calibrate.rank(
            open_pool(path["pool"]), case, kinds, folder, **how, bad_rows="drop", pool_block=100
        )
        found.append([one.ranks for one in ranked])
    assert all(one.equals(other) for one, other in zip(*found, strict=True))


def test_a_pool_of_bad_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, test, files = write_cases(tmp_path)
    np.save(tmp_path / "zeros.npy", 0 * test.pool)
    assert (
        run_calibrate([*files, "--pool", str(tmp_path / "zeros.npy")], tmp_path / "out", "--bad-rows", "drop")
        == 2
    )
    assert f"none of {ROWS} rows has a direction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--forms", "published", "published"], ["--forms", "each once"]),
        (["--absent-share", "1"], ["--absent-share: 1", "less than 1"]),
        (["--pool-shares", "0"], ["--pool-shares", "above 0"]),
        (["--top-k", "0"], ["--top-k: 0"]),
        (["--bins", "1"], ["--bins: 1"]),
        (["--fit-queries", "0"], ["--fit-queries: 0"]),
        (["--cases", "a.json", "b.json"], ["--cases", "2 files", "1 of --test"]),
        (["--fit-cases", "a.json", "b.json"], ["--fit-cases", "2 files", "1 of --fit"]),
        (["--fit", "TEST"], ["'test_x'", "other models"]),
        (["--calibrator", "none.json"], ["none.json: no such JSON file"]),
        (["--calibrator", "none.txt"], ["none.txt", ".pth"]),
        (["--calibrator", "state.pth"], ["state.pth", "inv_tau", "expected a state dict"]),
        (["--calibrator", "cold.pth"], ["cold.pth: inv_tau is 0", "more than 0"]),
        (["--calibrator", "wide.pth"], ["wide.pth: bias", "one finite number"]),
        (["--calibrator", "odd.json"], ["odd.json", "'published'", "'tau'"]),
        (["--calibrator", "low.json"], ["low.json", "above 0"]),
        (["--calibrator", "low bias.json"], ["bias.json", "'published'", "bias -1 must be above -1"]),
        (["--calibrator", "long.json"], ["long.json", "'published'", "too large"]),
        (["--calibrator", "negative.pth"], ["negative.pth", "bias -2000", "bias -2 must be above -1"]),
        (["--calibrator", "good.json"], ["good.json", "--fit alone"]),
        (["--pool", "nan.npy"], ["nan.npy", "row 1", "NaN", "direction; with --bad-rows drop"]),
        (["--pool", "other.npy"], ["24 dimensions", "has 7", "one encoder"]),
        (["--test", "plain.pth"], ["plain.pth", "gpt", "--cases"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(
    options: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, test, files = write_cases(tmp_path)
    one = torch.tensor(1.0)
    torch.save({"inv_tau": one}, tmp_path / "state.pth")
    torch.save({"inv_tau": 0 * one, "bias": one}, tmp_path / "cold.pth")
    torch.save({"inv_tau": one, "bias": torch.ones(2)}, tmp_path / "wide.pth")
    torch.save({"inv_tau": one, "bias": -2000 * one}, tmp_path / "negative.pth")
    for name, about in (
        ("low bias", {"tau": 1, "bias": -1}),
        ("long", {"tau": 10**400, "bias": 0}),
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
    assert run_calibrate(files, tmp_path / "out", *here) == 2
    line = capsys.readouterr().err
    messages = [text for text in line.splitlines() if not text.startswith("[abc calibrate]")]
    assert len(messages) == 1 and all(word in line for word in words), line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_models_to_fit_on_are_not_evaluated_under_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, files = write_cases(tmp_path)
    content = torch.load(files[3], weights_only=True)
    content["exemplar_tensors"] = content["exemplar_tensors"].clone()
    content["exemplar_tensors"][:2] += 1  # models 0 and 1 differ, model 2 does not
    copy = tmp_path / "clip" / "test_copy.pth"
    torch.save(content, copy)
    assert run_calibrate([*files[:5], str(copy)], tmp_path / "out") == 2
    assert "test_copy/000002 has the exemplars of val_x/000002" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_fit_files_are_required(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, files = write_cases(tmp_path)
    assert run_calibrate([*files[:2], *files[4:]], tmp_path / "out") == 2
    assert "--fit: missing" in capsys.readouterr().err


@pytest.mark.parametrize(("tau", "bias"), [(0.05, 0.0), (0.05, -0.9), (3.0, 20.0), (1e-4, -1e-9)])
def test_sound_published_parameters(tau: float, bias: float, tmp_path: Path) -> None:
    """A negative bias, above -1, takes influence from all candidates but the most similar ones."""
    path = tmp_path / "calibrator.json"
    path.write_text(json.dumps({"forms": {"published": {"tau": tau, "bias": bias}}}))
    assert calibrator_files.read(path, 0.5)["published"].calibrator == PublishedCalibrator(tau, bias)


def test_a_floor_is_a_share(tmp_path: Path) -> None:
    path = tmp_path / "calibrator.json"
    for floor, sound in ((0, True), (1, True), (-0.1, False), (1.1, False)):
        fitted = {"tau": 1, "floor": floor, "level": -2, "slope": 0.5}
        path.write_text(
            json.dumps({"forms": {"pool_aware": {"parameters": {"object": fitted}, "other_kinds": fitted}}})
        )
        if sound:
            assert calibrator_files.read(path, 0.5)["pool_aware"].description["other_kinds"] == fitted
        else:
            with pytest.raises(InputError, match=rf"form 'pool_aware': .*floor {floor} must be from 0 to 1"):
                calibrator_files.read(path, 0.5)
