# The life of a run: checks before the jobs are planned, locks and records at the start, messages at the end.

import atexit
import contextlib
import time

from snakemake.logging import logger

from attrib_core.runtime import devices, failure_summary, job_records, run_lock, snakemake_metadata
from attrib_core.storage import atomic, disk_space
from attrib_core.storage.store import layout, locks, references

IN_USE = None  # the error if another Snakemake works on the run; a dry run is allowed nevertheless
SUCCEEDED = False  # whether all jobs are finished


def start_run():
    """Lock the run, and remove the unfinished files of killed jobs."""
    if not workflow.is_main_process:
        return
    if IN_USE is not None:
        sys.exit(f"Error: {IN_USE}")
    reason, started = run_lock.unreliable(run_lock.FOLDER), time.time()
    try:
        started = run_lock.hold(CONFIG["run"]).stat().st_mtime  # by the clock of the disk
    except InputError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        exit_if_disk_full(error, run_lock.FOLDER)
        reason = f"its file system takes no locks ({error.strerror})"
    if reason is not None:
        use_lock_of_snakemake(reason)
    atomic.sweep(
        Path(RUN), older_than=0 if workflow.local_exec else 86400
    )  # a cluster's jobs may still write
    try:
        use_store()
    except (InputError, OSError) as error:
        exit_if_disk_full(error, snakemake_metadata.IN_RESULTS)
        raise
    # Absolute, since Snakemake has left the working directory at exit.
    folders = [run_lock.FOLDER.parent.absolute(), snakemake_metadata.IN_RESULTS.absolute()]
    atexit.register(print_failures, Path(RUN, run_layout.LOGS).absolute(), started, folders)


def use_store():
    """Mark the store as in use until this process ends, so that nothing is removed from it, and list the run's jobs."""
    store_in_use = contextlib.ExitStack()
    store_in_use.enter_context(locks.shared(Path(RUN)))
    atexit.register(store_in_use.close)
    atomic.sweep(layout.root(Path(RUN)), older_than=86400)  # other runs may write
    references.note_jobs(Path(RUN), JOBS)


def use_lock_of_snakemake(reason):
    """Use Snakemake's own lock, which profiles/default switches off."""
    logger.warning(
        f"Warning: {run_lock.FOLDER.resolve()}: {reason}. So Snakemake's own lock guards the run; if Snakemake is"
        " killed, make sure that none works on it any more and remove the lock by snakemake --unlock."
    )
    if workflow.execution_settings.lock:
        return
    persistence, held = workflow.persistence, contextlib.ExitStack()
    held.enter_context(type(persistence).lock(persistence))  # nolock replaced the methods of the instance
    held.callback(type(persistence).unlock, persistence)  # only now: it removes the locks of others, too
    atexit.register(held.close)


def print_failures(logs, since, other_folders):
    """Print the error of each failed job, and of a full disk, below all messages of Snakemake."""
    if not SUCCEEDED:
        failure_summary.print_summary(logs, since, other_folders)


def mark_succeeded():
    """Print no failures at exit."""
    global SUCCEEDED
    SUCCEEDED = True


def exit_if_disk_full(error, folder):
    """Exit with one line if an error is an InputError or says that the disk is full."""
    if isinstance(error, InputError):
        sys.exit(f"Error: {error}")
    if (what := disk_space.full(error)) is not None:
        sys.exit(f"Error: {disk_space.no_space(folder.resolve(), what)}")


def record_fingerprints():
    """Record what the fingerprints of the run cover, and move Snakemake's metadata into `results`."""
    if not workflow.is_main_process:
        return
    try:
        snakemake_metadata.keep_in_results()
        for digest, covered in COVERAGES.items():
            job_records.save_coverage(Path(RUN), digest, covered.as_json())
    except (InputError, OSError) as error:
        exit_if_disk_full(error, snakemake_metadata.IN_RESULTS)
        raise


def warn_of_missing_metadata():
    """Warn if finished jobs are unknown to Snakemake: changes since they ran would go unnoticed."""
    missing, finished = snakemake_metadata.count_without_metadata(Path(RUN))
    if missing:
        logger.warning(
            f"Warning: {RUN}: Snakemake has no metadata of {missing} of {finished} finished jobs, as after a copy"
            f" without {snakemake_metadata.IN_RESULTS}. Their files are used as they are, even if config or code changed"
            f" since: copy {snakemake_metadata.IN_RESULTS} too; or, if `python -m attrib_core why` finds no change, record"
            " them by `snakemake --touch --forceall`."
        )


def warn_of_moved_code():
    """Warn if an earlier version of the package wrote the run: then every job runs again."""
    record = job_records.read(job_records.record_path(Path(RUN), "base_model", {}))
    covered = record and job_records.read_coverage(Path(RUN), record.params.get("code", ""))
    if covered and job_records.covers_moved_code(covered):
        logger.warning(
            f"Warning: {RUN} was written by an earlier version of attrib_core, whose modules have moved since, so all its"
            " jobs run again. To keep its results, which `python -m attrib_core attribute` can still read, give the new run"
            " another name (config key run); afterwards `python -m attrib_core store gc` removes what no run needs."
        )


if workflow.is_main_process:
    snakemake_metadata.remove_broken_link()
    try:
        run_lock.check_free(CONFIG["run"])
    except InputError as error:
        IN_USE = error
    except OSError:
        pass  # a file system without locks, which start_run reports
    if IN_USE is None:
        # Recognise copied results: by Snakemake's metadata, and by the recorded modification times.
        try:
            disk_space.check_room(
                run_lock.FOLDER
            )  # Snakemake writes there, and fails on a full disk with tracebacks
            if snakemake_metadata.IN_RESULTS.is_dir():
                snakemake_metadata.keep_in_results()
            snakemake_metadata.restore_times(Path(RUN))
        except (InputError, OSError) as error:
            exit_if_disk_full(error, snakemake_metadata.IN_RESULTS)
            raise
        warn_of_missing_metadata()
        warn_of_moved_code()
    if not CONFIG["exemplars"]["held_out_only"]:
        logger.warning(
            "Warning: exemplars.held_out_only is false, so exemplars may be images that the base model was"
            " trained on, if the pool has such; ranks then do not measure the influence of customization alone."
        )
    # Without --resources gpu=N every core would start a job that waits for a GPU.
    if "gpu" not in workflow.global_resources and devices.visible():
        workflow.register_resource("gpu", len(devices.visible()))
