# What every other rule file uses: the checked config, the parts of the run, fingerprints of code.

import atexit
import contextlib
import math
import os
import re
import sys
import time
from pathlib import Path

from snakemake.logging import logger

from attrib_core import device, last_words, running, whole
from attrib_core.config import load_config, plain
from attrib_core.errors import InputError
from attrib_core.fingerprint import fingerprint

# Jobs import the same attrib_core whose fingerprints are taken here.
os.environ["PYTHONPATH"] = os.pathsep.join([workflow.basedir, *filter(None, [os.environ.get("PYTHONPATH")])])

try:
    CONFIG = plain(load_config(config))
except InputError as error:
    sys.exit(f"Error in the config: {error}")

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


def code(script, *families, data=(), packages=()):
    """Fingerprint of the code that a script and the named families reach, for `params`.

    Snakemake sees a change of the script alone. Families are named like "encoders/timm"; `data`
    are files that the code reads beside its inputs, `packages` those whose version counts.
    """
    return fingerprint(
        Path(workflow.basedir, script),
        families=families,
        data=[Path(path) for path in data],
        packages=packages,
    )


def kind_of(wildcards):
    """The kind of sets that a mapper is trained on; None for both, and where it is not trained."""
    kind = TRAINED_ON.get(wildcards.mapper, "both")
    return None if kind == "both" else kind


def kinds_of(wildcards):
    """The kinds of sets that a mapper is for: those that it is trained on; all where it is not trained."""
    kind = kind_of(wildcards)
    return [kind] if kind else ["object", "style"]


def heads(wildcards):
    """The file of the tuned heads, as input; none where embeddings are used as they are."""
    if wildcards.mapper == "untuned":
        return []
    return [f"{RUN}/mappers/{wildcards.encoder}/{wildcards.mapper}.safetensors"]


BUSY = None  # why this call may not work on the run, should it come to that; a dry run may look on
BEGAN = None  # when it began to work, by the clock of the disk


def begin():
    """Make sure that no other Snakemake works on the run, and clear what killed ones left half-written."""
    global BEGAN
    if not workflow.is_main_process:
        return
    if BUSY is not None:
        sys.exit(f"Error: {BUSY}")
    reason, BEGAN = running.unreliable(running.FOLDER), time.time()
    try:
        BEGAN = running.hold(CONFIG["run"]).stat().st_mtime
    except InputError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        if (what := whole.full(error)) is not None:
            sys.exit(f"Error: {whole.no_space(running.FOLDER.resolve(), what)}")
        reason = f"its file system takes no locks ({error.strerror})"
    if reason is not None:
        lock_by_snakemake(reason)
    whole.sweep(Path(RUN), older_than=0 if workflow.local_exec else 86400)  # a cluster's jobs may still write


def lock_by_snakemake(reason):
    """Fall back on Snakemake's own lock, which profiles/default switches off."""
    logger.warning(
        f"Warning: {running.FOLDER.resolve()}: {reason}. So Snakemake's own lock guards the run; if Snakemake is"
        " killed, make sure that none works on it any more and remove the lock by snakemake --unlock."
    )
    if workflow.execution_settings.lock:
        return
    own, held = workflow.persistence, contextlib.ExitStack()
    held.enter_context(type(own).lock(own))  # the methods of the instance do nothing, for nolock
    held.callback(type(own).unlock, own)  # only now: it removes the locks of others, too
    atexit.register(held.close)


def tell_failures():
    """After all that Snakemake says of a failure: each failed job's last words."""
    if BEGAN is not None and workflow.is_main_process:
        # absolute, since Snakemake has left the working directory by then
        atexit.register(last_words.tell, Path(RUN, "logs").absolute(), BEGAN)


wildcard_constraints:
    part=r"\d{4,9}",
    encoder="|".join(map(re.escape, ENCODERS)),
    mapper="|".join(map(re.escape, MAPPERS)),


if workflow.is_main_process:
    try:
        running.check_free(CONFIG["run"])
    except InputError as error:
        BUSY = error
    except OSError:
        pass  # a file system without locks, of which `begin` speaks
    if not CONFIG["exemplars"]["held_out_only"]:
        logger.warning(
            "Warning: exemplars.held_out_only is false, so exemplars may be pictures that the base model was"
            " trained on, if the pool has such; ranks are then no evidence of influence by customization alone."
        )
    # Without --resources gpu=N every core would start a job that waits for a GPU.
    if "gpu" not in workflow.global_resources and device.visible():
        workflow.register_resource("gpu", len(device.visible()))
