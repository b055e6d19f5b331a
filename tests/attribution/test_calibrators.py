"""The forms of soft influence against plain sums over whole pools, SciPy, and known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp, softmax

from attrib_core.attribution.calibration import calibrate, pool_aware, pool_aware_fit, published_fit
from attrib_core.attribution.calibration.calibrate import Evidence, Parameters, PoolAware
from attrib_core.attribution.calibration.calibrators import negative_log_likelihood
from attrib_core.attribution.calibration.pool_aware import outstanding
from attrib_core.common.errors import InputError
from tests.attribution.ranking_fixtures import world
from tests.attribution.test_calibration import Case, calibrated, case_of, dense, evidence

SETTINGS = [Parameters(0.3, 0.05, 1.0, 0.8), Parameters(0.8, 0.3, 3.0, 1.2)]


def condensed(own: np.ndarray, others: np.ndarray, *, top: int = 100, bins: int = 2048) -> Evidence:
    """One query as ranking would keep it: its exemplars, the most similar distractors, bins of the rest."""
    ranked = np.sort(others)[::-1]
    place = np.clip(((ranked[top:] + 1.0) / 2.0 * bins).astype(int), 0, bins - 1)
    counts, sums = np.bincount(place, minlength=bins), np.bincount(place, ranked[top:], bins)
    filled = counts > 0
    similarity = np.concatenate([own, ranked[:top], sums[filled] / counts[filled]])
    singles = len(own) + min(top, len(others))
    return Evidence(
        queries=["q"],
        kinds=["object"],
        sets=["s"],
        query=np.zeros(len(similarity), int),
        similarity=similarity,
        gap=similarity - similarity.max(),
        count=np.concatenate([np.ones(singles), counts[filled]]),
        exemplars=len(own),
        top=singles - len(own),
        ids=[f"c{i}" for i in range(singles)],
        ahead=np.zeros(len(own), int),
        siblings=np.arange(len(own)),
    )


def plain(own: np.ndarray, others: np.ndarray, p: Parameters, absent: float) -> tuple[np.ndarray, float]:
    """Shares and mass of none, written out in float64 over every candidate."""
    s = np.concatenate([own, others])
    z = (s - s.mean()) / s.std() / p.tau
    none = expit(p.level + np.log(absent / (1 - absent)) - p.slope * (logsumexp(z) - np.log(len(z))))
    return (1 - p.floor) * softmax(z) + p.floor / len(z), float(none)


@pytest.mark.parametrize("size", [1000, 100_000, 1_000_000])
@pytest.mark.parametrize("parameters", SETTINGS)
def test_likelihood_equals_a_float64_sum_over_pools_of_any_size(size: int, parameters: Parameters) -> None:
    rng = np.random.default_rng(size)
    own, others = rng.normal(0.35, 0.1, 4), rng.normal(0.1, 0.08, size)
    one, form = condensed(own, others), PoolAware({"object": parameters}, 0.3)
    share, none = plain(own, others, parameters, 0.3)
    found = negative_log_likelihood(one, form.shares(one))[0]
    assert found == pytest.approx(-np.log(share[:4]).mean(), abs=1e-4)
    assert np.log(form.none(one)[0]) == pytest.approx(np.log(none), abs=1e-3)
    assert one.total(one.count * form.shares(one))[0] == pytest.approx(1.0)
    published_form = calibrate.Calibrator(0.05, 1e-4)
    s = np.concatenate([own, others])
    weight = np.maximum(np.exp((s - s.max()) / 0.05) + 1e-4, 0)
    expected = -np.log(weight[:4] / weight.sum()).mean()
    assert negative_log_likelihood(one, published_form.shares(one))[0] == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = world(3, rows=1500, dim=32, set_sizes=[1, 1, 3, 4, 1, 1, 1, 1, 2, 3], queries_each=4, signal=0.3)
    return case_of(tmp_path_factory.mktemp("forms"), made)


def all_of(case: Case) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    parts = evidence(case)
    return [dense(case, name) for one in parts for name in one.queries], len(
        {n for p in parts for n in p.sets}
    )


def test_the_shares_are_the_optimum_that_scipy_finds_on_the_full_pool(case: Case) -> None:
    pieces, models = all_of(case)
    standard = [((s - s.mean()) / s.std(), len(own)) for own, o in pieces for s in [np.concatenate([own, o])]]

    def loss(x: np.ndarray) -> float:
        losses = [
            -np.log((1 - expit(x[1])) * softmax(z / np.exp(x[0])) + expit(x[1]) / len(z))[:n].mean()
            for z, n in standard
        ]
        prior = ((x[0] - np.log(0.6)) / 0.5) ** 2 + ((x[1] + 2.0) / 1.5) ** 2
        return float(np.mean(losses) + prior / 2 / models)

    best = min((minimize(loss, x, method="Nelder-Mead") for x in [(-0.5, -2), (0.3, 0)]), key=lambda r: r.fun)
    tau, floor = pool_aware_fit.shares_parameters(evidence(case))
    assert loss(np.array([np.log(tau), np.log(floor / (1 - floor))])) == pytest.approx(best.fun, abs=1e-5)
    assert np.log(tau) == pytest.approx(best.x[0], abs=0.02)


def test_none_is_the_logistic_regression_that_scipy_finds(case: Case) -> None:
    parts = evidence(case)
    pieces, models = all_of(case)
    tau = 0.5
    level, slope = pool_aware_fit.none_parameters(parts, tau)

    def standing_out(s: np.ndarray) -> float:
        return float(logsumexp((s - s.mean()) / s.std() / tau) - np.log(len(s)))

    present = np.array([standing_out(np.concatenate(piece)) for piece in pieces])
    absent = np.array([standing_out(others) for _, others in pieces])
    found = np.concatenate([outstanding(one, np.full(len(one.queries), tau)) for one in parts])
    np.testing.assert_allclose(found, present, atol=1e-4)

    def loss(x: np.ndarray) -> float:
        logit = [x[0] - x[1] * present, x[1] * absent - x[0]]
        return float(
            np.logaddexp(0, np.concatenate(logit)).mean() + ((x[0] / 5) ** 2 + (x[1] - 1) ** 2) / 2 / models
        )

    best = minimize(loss, [0.0, 1.0])
    np.testing.assert_allclose([level, slope], best.x, atol=2e-3)


def test_the_published_training_is_its_loss_at_its_lowest(case: Case) -> None:
    parts = evidence(case)
    trained = published_fit.train(parts)

    def loss(x: np.ndarray) -> float:
        total = []
        for one in parts:
            for number in range(len(one.queries)):  # a query at a time, written as the loss reads
                singles = slice(0, one.exemplars + one.top)
                mine = one.query[singles] == number
                s = one.similarity[singles][mine]
                u = np.exp((s - s.max()) / np.exp(np.clip(x[0], -7, 0)))
                w = np.logaddexp(0, 100 * (u + np.clip(x[1], -1, 10))) / 100
                n = int(one.n_exemplars()[number])
                total.append(np.log(w.sum()) - np.log(w[:n]).mean())
        return float(np.mean(total))

    found = loss(np.array([np.log(trained.tau), trained.bias]))
    starts = [(-4.0, -0.05), (-3.0, 0.0), (-2.0, 0.1), (-3.0, -0.3)]
    best = min((minimize(loss, x, method="Nelder-Mead") for x in starts), key=lambda r: r.fun)
    assert found <= best.fun + 1e-3


def test_a_larger_pool_of_the_same_kind_leaves_tau_and_reference_where_they_are() -> None:
    rng = np.random.default_rng(5)
    others = rng.normal(0.1, 0.08, 400_000)
    small, large = condensed(np.array([0.5]), others[:4000]), condensed(np.array([0.5]), others)
    assert pool_aware.deviations(small) == pytest.approx(pool_aware.deviations(large), rel=0.03)
    form = PoolAware({"object": Parameters(0.5, 0.1, 0.0, 1.0)}, 0.5)
    for one in (small, large):  # the floor has the same share whatever the pool's size
        floor = form.shares(one) - 0.9 * pool_aware.soft(one, np.array([0.5]))
        assert one.total(one.count * floor)[0] == pytest.approx(0.1)


def test_none_rises_where_exemplars_are_taken_away_and_with_the_assumed_share() -> None:
    rng = np.random.default_rng(6)
    one = condensed(np.array([0.6]), rng.normal(0.1, 0.08, 5000))
    without = calibrate.hold_out(one)
    assert without.exemplars == 0 and without.total(without.count)[0] == 5000 and without.gap.max() == 0
    masses = [
        PoolAware({"object": Parameters(0.5, 0.1, 2.0, 1.0)}, absent).none(piece)[0]
        for absent in (0.2, 0.8)
        for piece in (one, without)
    ]
    assert masses[0] < masses[1] and masses[2] < masses[3] and masses[0] < masses[2]


def test_a_thinner_pool_is_the_pool_of_the_kept_names_in_expectation(case: Case) -> None:
    (one,) = evidence(case)
    half, quarter = (calibrate.thin(one, share, 7) for share in (0.5, 0.25))
    singles = [set(piece.ids[piece.exemplars :]) for piece in (one, half, quarter)]
    assert singles[0] > singles[1] > singles[2]
    assert half.exemplars == one.exemplars and half.gap.max() == 0
    left = half.n_candidates() - half.n_exemplars()
    whole = one.n_candidates() - one.n_exemplars()
    np.testing.assert_allclose(left / whole, 0.5, atol=0.02)
    alone = calibrate.thin(calibrate.select(one, np.arange(len(one.queries)) == 2), 0.5, 7)
    together = calibrate.select(half, np.arange(len(one.queries)) == 2)
    assert alone.ids == together.ids
    np.testing.assert_array_equal(alone.count, together.count)


def test_queries_in_pieces_give_the_same_fit(case: Case) -> None:
    (one,) = evidence(case)
    halves = [calibrate.select(one, np.arange(len(one.queries)) % 2 == side) for side in (0, 1)]
    whole, parts = (pool_aware_fit.fit(given, 0.5) for given in ([one], halves))
    for kind, parameters in whole.calibrator.kinds.items():
        np.testing.assert_allclose(parameters, parts.calibrator.kinds[kind], rtol=1e-6)
    assert whole.together == pytest.approx(parts.together)


def test_soft_scores_and_none_sum_to_one_and_every_metric_is_there(case: Case) -> None:
    done, rows = calibrated(case, shown=1500, form="pool_aware")
    by_query: dict[str, list[float]] = {}
    for row in rows:
        by_query.setdefault(row["query_id"], []).append(row["influence"])
        assert 0 < row["none"] < 1
    none = {row["query_id"]: row["none"] for row in rows}
    tail = {query: 1 - none[query] - sum(values) for query, values in by_query.items()}
    assert all(-1e-9 < value < 1 - none[query] for query, value in tail.items())
    found = {
        (r["metric"], r["pool_share"]): r
        for r in done.calibration
        if (r["split"], r["kind"]) == ("test", "all")
    }
    assert found["none_mass", 1.0]["value"] == pytest.approx(np.mean(list(none.values())))
    assert found["none_mass_held_out", 1.0]["value"] > found["none_mass", 1.0]["value"]
    for row in done.calibration:
        if row["n_models"] == 1:  # that have a candidate of so much influence
            assert row["metric"].startswith("displayed_excess") and np.isnan(row["ci_low"])
        elif "expected_calibration_error" not in row["metric"]:
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    smaller, whole = (found["negative_log_likelihood", share]["value"] for share in (0.5, 1.0))
    assert smaller < whole  # fewer distractors, easier


def test_the_published_form_never_says_none_and_its_relu_makes_exemplars_impossible() -> None:
    form = calibrate.Calibrator(0.02, -0.2)
    one = condensed(np.array([0.3]), np.array([0.9, 0.1]))
    quality = calibrate.Quality(form, shown=2, absent_share=0.5, resamples=20)
    quality.add(one)
    found = {row["metric"]: row["value"] for row in quality.metrics() if row["kind"] == "all"}
    assert found["negative_log_likelihood"] == found["mixture_negative_log_likelihood"] == np.inf
    assert found["impossible"] == 1 and found["none_said_held_out"] == found["none_mass"] == 0


def test_kinds_have_their_own_temperature_where_left_out_models_want_it() -> None:
    rng = np.random.default_rng(8)

    def some(kind: str, name: str, shift: float) -> list[Evidence]:
        found = []
        for _ in range(3):
            others = rng.normal(0, 0.1, 100)
            one = condensed(rng.normal(shift, 0.03, 1), others)
            found.append(
                Evidence(
                    **{**one.__dict__, "kinds": [kind], "sets": [name], "queries": [f"{name}{len(found)}"]}
                )
            )
        return found

    apart = [
        e
        for i in range(3)
        for k, shift in (("object", 0.45), ("style", 0.05))
        for e in some(k, f"{k}{i}", shift)
    ]
    fitted = pool_aware_fit.fit(apart, 0.5)
    assert fitted.apart is not None and fitted.together is not None and fitted.apart < fitted.together
    assert fitted.calibrator.kinds["object"].tau < fitted.calibrator.kinds["style"].tau
    alike = [e for i in range(3) for k in ("object", "style") for e in some(k, f"{k}{i}", 0.3)]
    fitted = pool_aware_fit.fit(alike, 0.5)
    assert (
        fitted.calibrator.kinds["object"] == fitted.calibrator.kinds["style"]
        or fitted.apart < fitted.together
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forms": ["softmax"]}, "calibration.forms: 'softmax', expected one of pool_aware"),
        ({"forms": []}, "calibration.forms"),
        ({"absent_share": 1.0}, "calibration.absent_share: 1.0"),
        ({"pool_shares": [0.5, 0.5]}, "calibration.pool_shares"),
        ({"pool_shares": [1.5]}, "calibration.pool_shares"),
        ({"shown": -1}, "calibration.shown: -1"),
    ],
)
def test_settings_out_of_range(case: Case, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        calibrate.calibrate(
            ranks=case.ranks, candidates=case.candidates, exemplars=case.exemplars, save=print, **options
        )


def test_a_validation_split_without_queries_says_which_split_is_to_have_sets(case: Case) -> None:
    position = case.exemplars.column_names.index("split")
    none = case.exemplars.set_column(position, "split", pa.array(["test"] * len(case.exemplars)))
    for form in calibrate.FORMS:
        with pytest.raises(InputError, match="no customized query .* 'validation'"):
            calibrated(case._replace(exemplars=none), form=form)


def test_one_model_is_warned_of_and_has_no_interval(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = world(4, rows=200, dim=8, set_sizes=[1, 1], queries_each=3)
    done, _ = calibrated(case_of(tmp_path, made), form="pool_aware")
    assert "a single model, s00" in caplog.text
    assert all(np.isnan(row["ci_low"]) and row["n_models"] == 1 for row in done.calibration)


def test_a_kind_without_validation_sets_has_the_parameters_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = world(4, rows=200, dim=8, set_sizes=[1, 1, 1, 3], queries_each=3)
    case = case_of(tmp_path, made)  # objects in both splits, the one style set in the test split
    assert {one for e in evidence(case) for one in e.kinds} == {"object"}
    done, scores = calibrated(case, form="pool_aware")
    assert "no style set among those that calibrators were fitted on" in caplog.text
    assert done.calibrator["fitted_on"]["kinds"] == ["object"]
    renamed = case.exemplars.set_column(
        case.exemplars.column_names.index("kind"), "kind", pa.array(["object"] * len(case.exemplars))
    )
    assert calibrated(case._replace(exemplars=renamed), form="pool_aware")[1] == scores


def test_log_softmax_is_what_the_shares_are_without_a_floor() -> None:
    rng = np.random.default_rng(9)
    own, others = rng.normal(0.3, 0.1, 2), rng.normal(0.1, 0.1, 50)
    one = condensed(own, others)
    s = np.concatenate([own, others])
    share = PoolAware({"object": Parameters(0.7, 0.0, 0.0, 1.0)}, 0.5).shares(one)[:2]
    np.testing.assert_allclose(np.log(share), log_softmax((s - s.mean()) / s.std() / 0.7)[:2])
