"""Set up a job of the workflow: threads, log file, device, error messages and its record.

Standard library only, since threads must be set before numpy or torch are imported:

    with job(snakemake):
        from attrib_core.attribution.ranking import rank
        ...
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrib_core.common.errors import InputError
from attrib_core.runtime import devices, run_lock
from attrib_core.runtime.durations import duration
from attrib_core.runtime.progress import LOGGER
from attrib_core.storage import disk_space

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run the body as the job that Snakemake describes.

    The number of threads is the rule's; messages go to the rule's log file and, in short lines, to standard
    error; a rule with the resource `gpu` claims a GPU. Errors end the process with status 1: an InputError or a
    full disk with one line, any other error with its traceback in the log file only. SIGTERM and Ctrl-C end it
    like an error, with temporary files removed, and so does the end of the Snakemake that started it. A job that
    succeeds is recorded with the results (see `job_records`).
    """
    name = job_name(snakemake)
    log = Path(snakemake.log[0]) if len(getattr(snakemake, "log", ())) else None
    started = time.monotonic()
    with _environment(_thread_settings(snakemake.threads)), _logging(name, log):
        _limit_torch(snakemake.threads)
        before = _on_terminate(_terminated)
        try:
            run_lock.register_job()
            if getattr(snakemake, "resources", {}).get("gpu", 0):
                devices.claim()
            yield
            # not at the top: it imports numpy, which reads the number of threads at import
            from attrib_core.runtime import job_records

            job_records.save(snakemake)
        except InputError as error:
            LOGGER.error("error: %s", error)
            raise SystemExit(1) from None
        except (KeyboardInterrupt, _Terminated) as error:
            by = "SIGTERM" if isinstance(error, _Terminated) else "SIGINT (Ctrl-C)"
            LOGGER.error("error: ended by %s; run the same command again, finished work is kept", by)
            raise SystemExit(1) from None
        except Exception as error:
            if (what := disk_space.full(error)) is not None:
                LOGGER.error("error: %s", disk_space.no_space(_file(error), what))
                raise SystemExit(1) from None
            LOGGER.debug("traceback", exc_info=True)
            where = f"; the traceback is in {log}" if log else ""
            LOGGER.error("failed: %s: %s%s", type(error).__name__, _first_line(error), where)
            raise SystemExit(1) from None
        finally:
            _on_terminate(before)
        LOGGER.debug("done in %s", duration(time.monotonic() - started))


class _Terminated(BaseException):
    """SIGTERM was received. Not an Exception, so that no `except Exception` catches it."""


def _terminated(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleanup
    raise _Terminated


def _on_terminate(handler: Any) -> Any:
    """Set the handler of SIGTERM and return the previous one. Does nothing outside of the main thread."""
    if threading.current_thread() is threading.main_thread():
        return signal.signal(signal.SIGTERM, handler)
    return None


def _file(error: Exception) -> Path | None:
    name = getattr(error, "filename", None)
    return None if name is None else Path(str(name))


def job_name(snakemake: Any) -> str:
    """Return the rule and its wildcards: "rank pixel linear"."""
    return " ".join([str(snakemake.rule), *(str(value) for value in getattr(snakemake, "wildcards", ()))])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _thread_settings(threads: int) -> dict[str, str]:
    """Return the environment that sets the threads. PASSIVE: idle OpenMP threads sleep instead of spinning."""
    return {name: str(threads) for name in THREAD_VARIABLES} | {"OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _limit_torch(threads: int) -> None:
    """Set the threads of a torch that is imported already, which ignores the environment."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


class _LogFile(logging.FileHandler):
    """A log file that loses lines on a full disk, instead of failing the job or hiding its last message."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a line that could not be written."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _log_file(name: str, log: Path) -> _LogFile:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return _LogFile(log, mode="w", encoding="utf-8")
    except OSError as error:
        if (what := disk_space.full(error)) is None:
            raise
        print(f"[{name}] error: {disk_space.no_space(log, what)}", file=sys.stderr)
        raise SystemExit(1) from None


@contextmanager
def _logging(name: str, log: Path | None) -> Iterator[None]:
    """Log everything to the log file (of other packages only warnings), and one-line messages to standard error."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(logging.Formatter(f"[{name}] %(message)s"))
    handlers: list[tuple[logging.Logger, logging.Handler]] = [(LOGGER, terminal)]
    if log is not None:
        file = _log_file(name, log)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append((logging.getLogger(), file))
    level = LOGGER.level
    LOGGER.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        LOGGER.debug("job %s", name)
        yield
    finally:
        logging.captureWarnings(False)
        LOGGER.setLevel(level)
        for logger, handler in handlers:
            logger.removeHandler(handler)
            handler.close()
