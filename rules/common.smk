# What every other file uses: the checked config, the parts of the run, fingerprints of code.

import atexit
import contextlib
import math
import os
import re
import sys
import time
from pathlib import Path

from snakemake.logging import logger

from attrib_core.runtime import devices, failure_summary, job_records, run_lock, snakemake_metadata
from attrib_core.storage import atomic, disk_space
from attrib_core.config.load import WITHOUT_EFFECT, load_config, plain
from attrib_core.common.errors import InputError
from attrib_core.runtime.provenance.fingerprint import cover
from attrib_core.features.heads.heads import name as mapper_name
from attrib_core.storage.store import layout

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
TRAINED_ON = {
    mapper_name(CONFIG["mapper"]["head"], shared=CONFIG["mapper"]["shared"], kind=kind): kind
    for kind in CONFIG["mapper"]["trained_on"]
}
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

    Snakemake sees the date of the script alone, and profiles/default switches that off. Families are
    named like "encoders/timm"; `data` are files that the code reads beside its inputs, `packages` count though nothing imports them.
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


def growing(amount):
    """A resource of which each new attempt of a job gets twice as much: memory in MB, minutes of a scheduler."""
    return lambda wildcards, attempt: amount * 2 ** (attempt - 1)


BUSY = None  # why this call may not work on the run, should it come to that; a dry run may look on
ENDED_WELL = False  # whether all jobs that were asked for are done


def begin():
    """Make sure that no other Snakemake works on the run, and clear what killed ones left half-written."""
    if not workflow.is_main_process:
        return
    if BUSY is not None:
        sys.exit(f"Error: {BUSY}")
    reason, began = run_lock.unreliable(run_lock.FOLDER), time.time()
    try:
        began = run_lock.hold(CONFIG["run"]).stat().st_mtime  # by the clock of the disk
    except InputError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        if (what := disk_space.full(error)) is not None:
            sys.exit(f"Error: {disk_space.no_space(run_lock.FOLDER.resolve(), what)}")
        reason = f"its file system takes no locks ({error.strerror})"
    if reason is not None:
        lock_by_snakemake(reason)
    atomic.sweep(Path(RUN), older_than=0 if workflow.local_exec else 86400)  # a cluster's jobs may still write
    try:
        use_store()
    except (InputError, OSError) as error:
        no_room(error)
        raise
    # Absolute, since Snakemake has left the working directory by then.
    places_of_snakemake = [run_lock.FOLDER.parent.absolute(), snakemake_metadata.IN_RESULTS.absolute()]
    atexit.register(tell_failures, Path(RUN, "logs").absolute(), began, places_of_snakemake)


def use_store():
    """As long as this process lives, nothing is removed from the store; it is told which jobs the run has."""
    at_work = contextlib.ExitStack()
    at_work.enter_context(layout.in_use(Path(RUN)))
    atexit.register(at_work.close)
    atomic.sweep(layout.root(Path(RUN)), older_than=86400)  # other runs may write
    layout.move_in(Path(RUN))
    layout.note_jobs(Path(RUN), JOBS)


def lock_by_snakemake(reason):
    """Fall back on Snakemake's own lock, which profiles/default switches off."""
    logger.warning(
        f"Warning: {run_lock.FOLDER.resolve()}: {reason}. So Snakemake's own lock guards the run; if Snakemake is"
        " killed, make sure that none works on it any more and remove the lock by snakemake --unlock."
    )
    if workflow.execution_settings.lock:
        return
    own, held = workflow.persistence, contextlib.ExitStack()
    held.enter_context(type(own).lock(own))  # the methods of the instance do nothing, for nolock
    held.callback(type(own).unlock, own)  # only now: it removes the locks of others, too
    atexit.register(held.close)


def tell_failures(logs, began, others):
    """After all that Snakemake says of a failure, its own included: each failed job's last words, and a full disk."""
    if not ENDED_WELL:
        failure_summary.print_summary(logs, began, others)


def ended_well():
    """Nothing is to be told."""
    global ENDED_WELL
    ENDED_WELL = True


wildcard_constraints:
    part=r"\d{4,9}",
    encoder="|".join(map(re.escape, ENCODERS)),
    mapper="|".join(map(re.escape, MAPPERS)),


def no_room(error):
    """End with one line where an error says that the disk is full."""
    if isinstance(error, InputError):
        sys.exit(f"Error: {error}")
    if (what := disk_space.full(error)) is not None:
        sys.exit(f"Error: {disk_space.no_space(snakemake_metadata.IN_RESULTS.resolve(), what)}")


def note_what_counts():
    """For the record of the run: what its fingerprints cover. Snakemake's own notes go where the run is."""
    if not workflow.is_main_process:
        return
    try:
        snakemake_metadata.keep_in_results()
        for digest, covered in COVERAGES.items():
            job_records.save_coverage(Path(RUN), digest, covered.as_json())
    except (InputError, OSError) as error:
        no_room(error)
        raise


def tell_what_is_not_noted():
    """Warn where a run came without Snakemake's notes: what changed since it was made would go unnoticed."""
    missing, finished = snakemake_metadata.count_without_metadata(Path(RUN))
    if missing:
        logger.warning(
            f"Warning: {RUN}: no notes of Snakemake on {missing} of {finished} finished jobs, as where a run was copied"
            f" without {snakemake_metadata.IN_RESULTS}. Their files are taken as they are, even where config or code changed since:"
            f" copy {snakemake_metadata.IN_RESULTS} too; or, if `python -m attrib_core why` finds nothing, note them by"
            " `snakemake --touch --forceall`."
        )


if workflow.is_main_process:
    snakemake_metadata.remove_broken_link()
    try:
        run_lock.check_free(CONFIG["run"])
    except InputError as error:
        BUSY = error
    except OSError:
        pass  # a file system without locks, of which `begin` speaks
    if BUSY is None:
        # A copied folder of results is known again: by what Snakemake noted, and by times as they were.
        try:
            disk_space.check_room(run_lock.FOLDER)  # there Snakemake writes, and tells of a full disk by tracebacks
            if snakemake_metadata.IN_RESULTS.is_dir():
                snakemake_metadata.keep_in_results()
            snakemake_metadata.restore_times(Path(RUN))
        except (InputError, OSError) as error:
            no_room(error)
            raise
        tell_what_is_not_noted()
    if not CONFIG["exemplars"]["held_out_only"]:
        logger.warning(
            "Warning: exemplars.held_out_only is false, so exemplars may be images that the base model was"
            " trained on, if the pool has such; ranks are then no evidence of influence by customization alone."
        )
    # Without --resources gpu=N every core would start a job that waits for a GPU.
    if "gpu" not in workflow.global_resources and devices.visible():
        workflow.register_resource("gpu", len(devices.visible()))
