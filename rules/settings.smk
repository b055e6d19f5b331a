# Settings that all rules use: the checked config, the parts of the run, fingerprints of code.

import math
import os
import re
import sys
from pathlib import Path

from attrib_core.common.constants import KINDS, UNTUNED
from attrib_core.common.errors import InputError
from attrib_core.config.load import load_config, plain
from attrib_core.config.schema import WITHOUT_EFFECT
from attrib_core.features.heads.heads import mapper_name
from attrib_core.runtime.provenance.fingerprint import cover
from attrib_core.storage import run_layout

# Jobs import the same attrib_core whose fingerprints are computed here.
PYTHONPATH_BEFORE = os.environ.get("PYTHONPATH")
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [workflow.basedir, PYTHONPATH_BEFORE])))

try:
    CONFIG = plain(load_config(config))
except InputError as error:
    sys.exit(f"Error in the config: {error}")

ENVIRONMENT = Path(workflow.basedir, "envs", "cpu.yaml")  # of all rules, for --sdm conda
RUN = f"results/{CONFIG['run']}"
ENCODERS = list(CONFIG["encoders"])
TRAINED_ON = {
    mapper_name(CONFIG["mapper"]["head"], shared=CONFIG["mapper"]["shared"], kind=kind): kind
    for kind in CONFIG["mapper"]["trained_on"]
}
MAPPERS = [UNTUNED, *TRAINED_ON]


def parts(items, size):
    """Return the names of the parts that so many items are divided into: "0000", "0001", ..."""
    return [f"{number:04d}" for number in range(math.ceil(items / size))]


POOL_PARTS = parts(CONFIG["pool"]["images"], CONFIG["parts"]["pool_images"])
SET_PARTS = parts(
    CONFIG["exemplars"]["object_sets"] + CONFIG["exemplars"]["style_sets"], CONFIG["parts"]["exemplar_sets"]
)


wildcard_constraints:
    part=r"\d{4,9}",
    encoder="|".join(map(re.escape, ENCODERS)),
    mapper="|".join(map(re.escape, MAPPERS)),


def with_effect(section):
    """Return a section of the config without the keys that change no result."""
    values = CONFIG[section]
    return {name: value for name, value in values.items() if f"{section}.{name}" not in WITHOUT_EFFECT}


COVERAGES = {}
"""What each fingerprint covers, by its digest: for the records of the run, and for `attrib_core why`."""


def fingerprint(script, *, families=(), modules=(), data=(), packages=()):
    """Return the fingerprint of all code that a script reaches, for `params`.

    Snakemake only sees the modification time of the script, and profiles/default switches that off. `families` are
    those that the script loads by name, such as "encoders/timm"; `modules` are further modules, by dotted name;
    `data` are files that the code reads besides its inputs; `packages` count though nothing imports them.
    """
    covered = cover(
        Path(workflow.basedir, script),
        families=families,
        modules=modules,
        data=[Path(path) for path in data],
        packages=packages,
        root=Path(workflow.basedir),
    )
    COVERAGES[covered.digest] = covered
    return covered.digest


def untracked(value):
    """Wrap a param that has no effect on the result: Snakemake does not compare functions of `output`."""
    return lambda wildcards, output: value


def growing(amount):
    """Double a resource with each attempt of a job: memory in MB, or a scheduler's minutes."""
    return lambda wildcards, attempt: amount * 2 ** (attempt - 1)
