"""Read a finished run: its measured metrics, encoders, heads and calibrators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from attrib_core.attribution.calibration.calibrators import Calibrator, from_description
from attrib_core.attribution.metrics import best_features
from attrib_core.attribution.metrics.metrics_table import GROUP, Metrics, read_metrics
from attrib_core.common.constants import UNTUNED
from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.embedding import embedding_tables, encoder_protocol
from attrib_core.features.heads import heads as mapped
from attrib_core.runtime import job_records
from attrib_core.storage import run_layout, tables


class Features(NamedTuple):
    """A kind of sets, and encoder and mapper by their names in the run."""

    kind: str
    encoder: str
    mapper: str


@dataclass(frozen=True)
class Run:
    """The folder of a finished run, and its table of metrics."""

    folder: Path
    metrics: Metrics

    def images(self) -> list[Path]:
        """Return the parts of the pool."""
        return list(run_layout.find_parts(self.folder, run_layout.POOL_PART).values())

    def pool(self, encoder: str) -> list[Path]:
        """Return the files of the embeddings of the pool, part by part."""
        numbers = run_layout.find_parts(self.folder, run_layout.POOL_PART)
        return [self._path(run_layout.POOL_EMBEDDINGS, encoder=encoder, part=part) for part in numbers]

    def exemplar_rows(self) -> frozenset[str]:
        """Read the image_id of the exemplars in the pool."""
        rows = tables.read(self._path(run_layout.EXEMPLARS), "exemplars", ["image_id"])
        return frozenset(rows["image_id"].to_pylist())

    def excluded_rows(self) -> frozenset[str]:
        """Read the image_id of rows of the pool that are not distractors: exemplars and images like them."""
        rows = tables.read(self._path(run_layout.EXCLUDED), "excluded", ["image_id"])
        return frozenset(rows["image_id"].to_pylist())

    def heads(self, features: Features) -> mapped.Heads:
        """Load the heads of a mapper; none for untuned features."""
        if features.mapper == UNTUNED:
            return mapped.load(None)
        return mapped.load(self._path(run_layout.MAPPER, encoder=features.encoder, mapper=features.mapper))

    def top_k(self, features: Features) -> int:
        """Return how many candidates of a query the run keeps by name."""
        return int(self._of("rank", features)["settings"]["top_k"])

    def bins(self, features: Features) -> int:
        """Return the number of histogram bins of all other candidates."""
        return int(self._of("rank", features)["settings"]["bins"])

    def calibrator_name(self, features: Features) -> str:
        """Return the name of the calibrator of the soft scores of the run: the first in its config."""
        return str(self._of("calibrate", features)["settings"]["forms"][0])

    def calibration(self, features: Features, template: str = run_layout.CALIBRATION) -> Path:
        """Return the path of a file of the calibration with a mapper, by default of its metrics."""
        return self._path(template, encoder=features.encoder, mapper=features.mapper)

    def fitted_on(self, features: Features) -> dict[str, Any]:
        """Read what the calibrator was fitted on."""
        return dict(tables.read_json(self.calibration(features, run_layout.CALIBRATOR))["fitted_on"])

    def calibrator(self, features: Features) -> Calibrator:
        """Load the calibrator of the soft scores of the run."""
        path, name = self.calibration(features, run_layout.CALIBRATOR), self.calibrator_name(features)
        described = tables.read_json(path).get("forms", {}).get(name, {})
        try:
            return from_description(name, described, described.get("absent_share", 0.5))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def encoder(self, name: str) -> encoder_protocol.Encoder:
        """Load an encoder of the run, and check that it is the one that computed the embeddings.

        Raises InputError where its identity (options, checksums of weights) differs.
        """
        parts = self.pool(name)
        number = min(run_layout.find_parts(self.folder, run_layout.POOL_PART))
        section = self._job("embed_pool_part", {"encoder": name, "part": number})["encoder"]
        encoder = encoder_protocol.load(section, f"encoders.{name}")
        own = json.loads(json.dumps(encoder.identity))
        for path in parts:
            if not path.is_file():
                raise InputError(f"{path}: no such file; the run is not finished, call snakemake again")
            if (difference := _difference(embedding_tables.identity(path), own)) is not None:
                raise InputError(
                    f"{path}: computed by another encoder {name!r} than the one loaded here: {difference};"
                    " expected the same weights and options"
                )
        return encoder

    def _path(self, template: str, **wildcards: str) -> Path:
        return run_layout.path(self.folder, template, **wildcards)

    def _of(self, rule: str, features: Features) -> Mapping[str, Any]:
        return self._job(rule, {"encoder": features.encoder, "mapper": features.mapper})

    def _job(self, rule: str, wildcards: Mapping[str, str]) -> Mapping[str, Any]:
        return _params(self.folder, rule, wildcards)


def open_run(folder: Path) -> Run:
    """Open a finished run; InputError for another folder."""
    if not folder.is_dir():
        raise InputError(f"--run: {folder}: no such folder; expected that of a finished run: results/NAME")
    if not (folder / run_layout.REPORT_PAGE).is_file():
        raise InputError(
            f"--run: {folder / run_layout.REPORT_PAGE} is not there; expected a finished run (see status)"
        )
    params = _params(folder, "report", {})
    columns = (*GROUP, "value")  # no others, so that runs of earlier versions are read
    metrics = read_metrics(folder / run_layout.METRICS, params["encoders"], params["mappers"], columns)
    return Run(folder, metrics)


def choose_features(run: Run, *, kind: str | None, encoder: str | None, mapper: str | None) -> list[Features]:
    """Choose the features for the given kind, or for each kind of the run.

    An encoder or mapper that is not given is the best on the validation sets of the kind
    (`metrics.best_features`): the encoder among all, the mapper for that encoder. Raises InputError for a name
    that the run lacks, and for a mapper of another kind.
    """
    known = run.metrics
    for option, value, names in (
        ("kind", kind, known.kinds),
        ("encoder", encoder, known.encoders),
        ("mapper", mapper, known.mappers),
    ):
        if value is not None and value not in names:
            raise InputError(f"--{option}: {value!r} is none of {run.folder}, {close_matches(value, names)}")
    served = known.kinds if mapper is None else best_features.kinds_for_mapper(known, mapper)
    if kind is not None and kind not in served:
        raise InputError(f"--mapper: {mapper!r} is for {' and '.join(served)} sets, not for --kind {kind}")
    found = []
    for one in [kind] if kind is not None else served:
        best = encoder or best_features.best_on_validation(known, one)[0]
        own = mapper or known.resolve(
            best_features.best_on_validation(replace(known, encoders=(best,)), one)[1], one
        )
        found.append(Features(one, best, own or UNTUNED))
    return found


def _params(folder: Path, rule: str, wildcards: Mapping[str, str]) -> Mapping[str, Any]:
    """Read the parameters of a finished job of the run."""
    path = job_records.record_path(folder, rule, wildcards)
    if (record := job_records.read(path)) is None:
        raise InputError(f"--run: {path} is not there or not readable; expected a finished run (see status)")
    return record.params


def _difference(stored: Any, loaded: Any, key: str = "identity") -> str | None:
    """Describe where two identities differ first; None where they are equal."""
    if isinstance(stored, dict) and isinstance(loaded, dict):
        for name in sorted({*stored, *loaded}):
            if (found := _difference(stored.get(name), loaded.get(name), f"{key}.{name}")) is not None:
                return found
        return None
    return None if stored == loaded else f"{key} {stored!r} in the file, {loaded!r} here"
