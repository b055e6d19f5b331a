"""Calibration, mapper curves and benchmark files of the simulated run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attrib_core.storage import tables


def write_calibration(
    folder: Path,
    world: Any,
    ranked: list[dict[str, Any]],
    encoder: str,
    mapper: str,
    *,
    top_k: int,
    tau: float = 0.06,
) -> None:
    soft, masses, reliability = [], [], []
    for item in ranked:
        query = item["query"]
        entry = world.sets[query["set"]]
        if query["condition"] != "customized" or entry["split"] != "test":
            continue
        if mapper not in ("untuned", f"linear-{entry['kind']}"):
            continue
        scores = np.concatenate([[row["similarity"] for row in item["ranks"]], item["scores"]])
        names = [row["exemplar_id"] for row in item["ranks"]] + item["names"]
        share = np.exp((scores - scores.max()) / tau)
        share /= share.sum()
        order = np.argsort(-scores)
        count = len(item["ranks"])
        for place, index in enumerate(order):
            if place < top_k or index < count:
                soft.append(
                    dict(
                        encoder=encoder, mapper=mapper, query_id=query["name"], candidate_id=names[index],
                        is_exemplar=bool(index < count), rank=place + 1, similarity=float(scores[index]),
                        influence=float(share[index]), none=0.0,
                    )
                )  # fmt: skip
        kind = world.sets[query["set"]]["kind"]
        kept = set(order[:top_k].tolist()) | set(range(count))
        masses.append((kind, share[:count].sum(), 1 - sum(share[i] for i in kept)))
        reliability += [(share[i], i < count, 1 / count) for i in kept]
    tables.write(folder / "soft_scores.parquet", "soft_scores", soft)
    rows = []
    for kind in ("all", *sorted({kind for kind, _, _ in masses})):
        mass = np.array([exemplar for name, exemplar, _ in masses if kind in (name, "all")])
        tail = np.array([rest for name, _, rest in masses if kind in (name, "all")])
        values = dict(
            negative_log_likelihood=-np.log(mass).mean(), expected_calibration_error=0.04,
            brier=((1 - mass) ** 2).mean(), exemplar_mass=mass.mean(), tail_mass=tail.mean(),
            mixture_negative_log_likelihood=3.1, mixture_expected_calibration_error=0.2, mixture_brier=0.7,
            none_said=0.2, none_said_held_out=0.6, none_said_control=0.55, none_auc=0.8,
        )  # fmt: skip
        rows += [
            dict(encoder=encoder, mapper=mapper, form=calibrator, split="test", pool_share=share, kind=kind,
                 metric=metric, value=float(value + worse),
                 ci_low=float(value - (0.1 if "none" in metric else 0)),
                 ci_high=float(value + (0.1 if "none" in metric else 1)), df=5.0,
                 n_queries=len(mass), n_models=5)
            for calibrator, worse in (("pool_aware", 0.0), ("published", 0.5), ("published_whole_pool", 0.2))
            for share in (1.0, 0.25)
            for metric, value in values.items()
        ]  # fmt: skip
    tables.write(folder / "calibration.parquet", "calibration", rows)
    edges = np.concatenate([[0, 1e-5, 1e-4, 1e-3, 1e-2], np.linspace(0.1, 1, 10)])
    shares = np.array([row[0] for row in reliability])
    truth = np.array([row[1] * row[2] for row in reliability])
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (shares >= low) & ((shares < high) | (high == 1))
        mean = (float(shares[inside].mean()), float(truth[inside].mean())) if inside.any() else (None, None)
        rows.append(
            dict(encoder=encoder, mapper=mapper, split="test", bin_low=low, bin_high=high, mean_influence=mean[0],
                 exemplar_share=mean[1], n_candidates=int(inside.sum()))
        )  # fmt: skip
    rows = [
        row | {"form": calibrator, "judged": judged}
        for calibrator in ("pool_aware", "published", "published_whole_pool")
        for judged in ("shares", "displayed")
        for row in rows
    ]
    tables.write(folder / "reliability.parquet", "reliability", rows)
    tables.write_json(folder / "calibrator.json", dict(tau=tau, floor=0.0))


def write_tuning(stem: Path, encoder: str, mapper: str) -> None:
    """Write curves that rise and fall, less so with a stronger penalty, and do not gain for pixels.

    The style mapper of efficientnet starts from whitened features.
    """
    start, rows = 0.42, []
    names = dict(encoder=encoder, mapper=mapper)
    origin: dict[str, Any] = dict(start="identity", shrinkage=None)
    rows.append(names | origin | _point(None, 0, start))
    for shrinkage in (0.1, 0.3):
        other = dict(start="within", shrinkage=shrinkage)
        rows.append(names | other | _point(None, 0, start - 0.01 - shrinkage / 10))
    if (encoder, mapper) == ("efficientnet", "linear-style"):
        origin = other
    for penalty in (0.0, 0.01, 0.1, 1.0):
        for epoch in range(26):
            gain = epoch / 8 * np.exp(1 - epoch / (8 + 6 * penalty)) * (0.1 + 0.05 * (penalty == 0.1))
            gain = -0.3 * gain if encoder == "pixel" else gain
            rows.append(names | origin | _point(penalty, epoch, start + float(gain)))
    best = max(rows, key=lambda row: (row["validation_mean_average_precision"], row["penalty"] is None))
    best["chosen"] = True
    tables.write(stem.with_name(f"{stem.name}.curve.parquet"), "mapper_curve", rows)
    identity, gain = best["penalty"] is None, best["validation_mean_average_precision"] - start
    chosen = {name: best[name] for name in best if name not in ("loss", "drift", "chosen")}
    chosen |= dict(identity_is_best=identity, gain=gain)
    chosen |= dict(gain_low=0.5 * gain, gain_high=1.5 * gain, untuned_validation_mean_average_precision=start)
    choice = stem.with_name(f"{stem.name}.choice.json")
    tables.write_json(choice, chosen | dict(untuned_train_mean_average_precision=start))


def _point(penalty: float | None, epoch: int, value: float) -> dict[str, Any]:
    return dict(
        penalty=penalty, epoch=epoch, loss=None if epoch == 0 else float(3.2 * np.exp(-epoch / 9)),
        drift=0.01 * epoch, train_mean_average_precision=0.42 + 0.02 * epoch,
        validation_mean_average_precision=value, chosen=False,
    )  # fmt: skip


def write_benchmarks(folder: Path, encoders: Sequence[str], mappers: Sequence[str]) -> None:
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    seconds = dict(pool_part=9.1, exemplars=2.2, customize_part=162.0, synthesize_part=64.5, measure=3.3)
    seconds |= {f"embed_pool_part/{encoder}": 17.0 for encoder in encoders}
    seconds |= {f"rank/{encoder}-{mapper}": 2.4 for encoder in encoders for mapper in mappers}
    for name, value in seconds.items():
        for part in range(2 if "part" in name else 1):
            path = folder / (f"{name}/{part:04d}.tsv" if "part" in name else f"{name}.tsv")
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers = "\t".join([f"{value + part:.4f}", "0:00:09", "812.4", "1", "1", "1", "0", "0", "98.0"])
            path.write_text(f"{header}{numbers}\t{value * 0.95:.2f}\n", encoding="utf-8")
