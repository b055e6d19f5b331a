"""State in one sentence how reliable an attribution is, from the evaluation of the calibrator."""

from __future__ import annotations

from attrib_core.attribution.single_image.finished_run import Features, Run
from attrib_core.storage import tables


def sentence(run: Run, features: Features) -> str:
    """Say what the calibrator was fitted on, how it did on the test split, and what was not measured."""
    fitted = run.fitted_on(features)
    tested = _test_metrics(run, features)
    evaluated = ""
    if tested:
        evaluated = (
            f"; on {tested['images']} images of models that it was not fitted on, an image's own exemplars got"
            f" {percent(tested['exemplar_mass'])} of the influence on average"
        )
        if "none_auc" in tested:
            evaluated += (
                ", and “none of these” distinguished an image with its exemplars in the pool from one without in"
                f" {percent(tested['none_auc'])} of pairs, where a guess is right in {percent(0.5)}"
            )
    return (
        f"These shares were calibrated on {fitted['queries']} images of {fitted['exemplar_sets']} models that the run"
        f" customized on exemplars of this pool ({' and '.join(fitted['kinds'])} sets){evaluated}; an image of another"
        " generator is outside of what was measured, and no share is proof."
    )


def _test_metrics(run: Run, features: Features) -> dict[str, float]:
    """Read the metrics of the calibrator on the test split with the whole pool, and `images`; {} without any."""
    columns = ("form", "split", "kind", "pool_share", "metric", "value", "n_queries")
    rows = tables.read(run.calibration(features), "calibration", columns).to_pylist()
    rows = [
        row
        for row in rows
        if (row["form"], row["split"], row["kind"]) == (run.calibrator_name(features), "test", features.kind)
        and row["pool_share"] == 1.0
        and row["value"] is not None
    ]
    values = {row["metric"]: float(row["value"]) for row in rows}
    images = max((int(row["n_queries"]) for row in rows), default=0)
    return {**values, "images": images} if "exemplar_mass" in values else {}


def percent(share: float) -> str:
    """Format a share as percent with one decimal."""
    return f"{100 * share:.1f} %"
