"""Fit soft influence on the validation split and apply it to the test split, for one encoder and mapper."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.attribution.calibration import calibrate
    from attrib_core.storage import tables

    inputs, outputs = snakemake.input, snakemake.output
    with tables.writer(Path(outputs.soft_scores), tables.schema("soft_scores")) as soft_scores:
        calibrated = calibrate.calibrate(
            ranks=tables.read(Path(inputs.ranks), "ranks", calibrate.RANK_COLUMNS),
            candidates=Path(inputs.candidates),
            exemplars=tables.read(Path(inputs.exemplars), "exemplars", calibrate.EXEMPLAR_COLUMNS),
            kinds=snakemake.params.kinds,
            save=soft_scores.write,
            seed=snakemake.params.seed,
            **snakemake.params.settings,
        )
    tables.write_json(Path(outputs.calibrator), calibrated.calibrator)
    tables.write(Path(outputs.calibration), "calibration", calibrated.calibration)
    tables.write(Path(outputs.reliability), "reliability", calibrated.reliability)
