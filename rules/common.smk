# What every other file uses: the checked config, the parts of the run, fingerprints of code.

import math
import os
import re
import sys
from pathlib import Path

from snakemake.logging import logger

from attrib_core import device, records
from attrib_core.config import WITHOUT_EFFECT, load_config, plain
from attrib_core.errors import InputError
from attrib_core.fingerprint import cover

# Jobs import the same attrib_core whose fingerprints are taken here.
FOUND_BEFORE = os.environ.get("PYTHONPATH")
os.environ.update(PYTHONPATH=os.pathsep.join([workflow.basedir, *([FOUND_BEFORE] if FOUND_BEFORE else [])]))

try:
    CONFIG = plain(load_config(config))
except InputError as error:
    sys.exit(f"Error in the config: {error}")

ENVIRONMENT = Path(workflow.basedir, "envs", "cpu.yaml")  # of all rules, for --sdm conda
RUN = f"results/{CONFIG['run']}"
ENCODERS = list(CONFIG["encoders"])
TRAINED_ON = {f"{CONFIG['mapper']['head']}-{kind}": kind for kind in CONFIG["mapper"]["trained_on"]}
MAPPERS = ["untuned", *TRAINED_ON]


def parts(items, size):
    """Names of the parts that so many items are cut into: "0000", "0001", ..."""
    return [f"{number:04d}" for number in range(math.ceil(items / size))]


POOL_PARTS = parts(CONFIG["pool"]["images"], CONFIG["parts"]["pool_images"])
SET_PARTS = parts(
    CONFIG["exemplars"]["object_sets"] + CONFIG["exemplars"]["style_sets"], CONFIG["parts"]["exemplar_sets"]
)


def with_effect(section):
    """A section of the config, without the keys that change no result."""
    values = CONFIG[section]
    return {name: value for name, value in values.items() if f"{section}.{name}" not in WITHOUT_EFFECT}


COVERAGES = {}
"""What each fingerprint covers, by its digest: for the record of the run, and for `attrib_core why`."""


def code(script, *families, data=(), packages=()):
    """Fingerprint of the code that a script and the named families reach, for `params`.

    Snakemake sees the date of the script alone, and profiles/default switches that off. Families are named like "encoders/timm"; `data`
    are files that the code reads beside its inputs, `packages` count though nothing imports them.
    """
    covered = cover(
        Path(workflow.basedir, script),
        families=families,
        data=[Path(path) for path in data],
        packages=packages,
        root=Path(workflow.basedir),
    )
    COVERAGES[covered.digest] = covered
    return covered.digest


def untracked(value):
    """A param that decides nothing about the result: Snakemake compares no function of `output`."""
    return lambda wildcards, output: value


wildcard_constraints:
    part=r"\d{4,9}",
    encoder="|".join(map(re.escape, ENCODERS)),
    mapper="|".join(map(re.escape, MAPPERS)),


def note_what_counts():
    """For the record of the run: what its fingerprints cover. Snakemake's own notes go where the run is."""
    if workflow.is_main_process:
        records.house_metadata()
        for digest, covered in COVERAGES.items():
            records.keep_coverage(Path(RUN), digest, covered.as_json())


if workflow.is_main_process:
    # A copied folder of results is known again: by what Snakemake noted, and by times as they were.
    if records.HOME.is_dir():
        records.house_metadata()
    records.settle(Path(RUN))
    if not CONFIG["exemplars"]["held_out_only"]:
        logger.warning(
            "Warning: exemplars.held_out_only is false, so exemplars may be pictures that the base model was"
            " trained on, if the pool has such; ranks are then no evidence of influence by customization alone."
        )
    # Without --resources gpu=N every core would start a job that waits for a GPU.
    if "gpu" not in workflow.global_resources and device.visible():
        workflow.register_resource("gpu", len(device.visible()))
