"""No finished work is lost, however a run ends: killed at random, SIGTERM, a full disk, started twice."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow import kill_fixtures as run
from tests.workflow_fixtures import config_file

pytestmark = pytest.mark.slow
KILLS_A_RULE = 2
FROM_RANKING = ("ranks/*/*", "candidates/*/*", "calibration/*/*", "*s.parquet", "report/*")
SEED = 20230613


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A finished, undisturbed run and its config, with stacks of one set, so that single sets can be lost."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = config_file(folder / "kill.yaml", customizer={"stack": 1}, mapper={"trained_on": ["both"]})
    run.finish(folder, config)
    yield folder, config
    shutil.rmtree(folder)


def copy_without(undisturbed: tuple[Path, Path], folder: Path, *patterns: str) -> None:
    """Copy the undisturbed run to a folder, without some of its results."""
    shutil.copytree(undisturbed[0], folder, dirs_exist_ok=True, symlinks=True)
    for pattern in patterns:
        for path in (folder / run.RESULTS).glob(pattern):
            if path.name not in ("exemplars.parquet", "prompts.parquet"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_thirty_kills_lose_nothing(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    """Each rule is killed twice while it runs, at random moments, always followed by a plain call.

    Every third time only Snakemake is killed, and its jobs are left alone. What was finished at one kill is the
    same file at the next: no model is trained twice except those of an unfinished stack, no image is synthesized
    again except those of an unfinished set, no table is written again except that of an unfinished job.

    Rules that were not killed in time are forced to run once more; until a call has then succeeded, the tables
    that depend on them are rightly written again, and only models and images, which have keys, must remain.
    """
    quiet, config = undisturbed
    seconds = run.seconds_of(quiet)
    fastest = min(seconds.values())
    chance = random.Random(SEED)
    left = Counter(dict.fromkeys(run.RULES, KILLS_A_RULE))
    kills, finished, forced, anew = 0, {}, [], False
    while left.total():
        since = time.time_ns()
        process = run.start(tmp_path, config, *forced)
        rule = run.wait_for(process, lambda since=since: _next_to_kill(run.jobs_begun(tmp_path, since), left))
        if rule is None:  # it ended before every rule was killed; these rules are forced to run once more
            assert process.wait() == 0, run.printed(tmp_path)[-4000:]
            forced, finished, anew = ["--forcerun", list(+left)[-1]], {}, False
            continue
        anew = anew or bool(forced)
        time.sleep(chance.uniform(0, 0.9 * (seconds[rule] - fastest)))  # a log starts after the imports
        if kills % 3 == 2:
            process.kill()
            process.wait()
        else:
            run.kill_group(process)
        kills, left[rule], forced = kills + 1, left[rule] - 1, []
        now = run.done(tmp_path)
        if anew:
            finished, now = run.keyed(finished), run.keyed(now)
        again = [path for path, written in finished.items() if now.get(path) != written]
        assert not again, f"finished before, and written again until kill {kills} (of {rule}): {again}"
        finished = now
    assert kills == KILLS_A_RULE * len(run.RULES) >= 30
    printed = run.finish(tmp_path, config)
    assert "unlock" not in printed
    assert finished and finished.items() <= run.done(tmp_path).items()
    assert not run.leftovers(tmp_path)
    run.same(run.contents(tmp_path), run.contents(quiet))


def _next_to_kill(begun: list[str], left: Counter[str]) -> str | None:
    return next((rule for rule in begun if left[rule] > 0), None)


# As `sitecustomize`, which Python imports at startup: training halts after its second set, until it or the test ends.
HALT = """
import fcntl, pathlib
real = pathlib.Path.replace
def replace(path, target):
    found = real(path, target)
    if target.match("store/deltas/*.json") and len(list(target.parent.glob("*.json"))) == 2:
        fcntl.flock(open({lock!r}), fcntl.LOCK_SH)
    return found
pathlib.Path.replace = replace
"""


def test_sigterm_ends_cleanly_and_prints_what_to_do(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    """Sent to the process group, as by a scheduler: status 1, no unfinished files, and a plain call continues."""
    quiet, config = undisturbed
    customized = ("models/*", "../store/deltas/*", "synthesized/*", "embeddings/*/queries/*")
    copy_without(undisturbed, tmp_path, *customized, "mappers/*/*", "indices/*/*", *FROM_RANKING)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(HALT.format(lock=str(modules / "lock")))
    with (modules / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = run.start(tmp_path, config, cores=1, modules=modules)
        assert run.wait_for(process, lambda: len(list(tmp_path.glob("results/store/deltas/*.json"))) == 2)
        kept = run.done(tmp_path)
        run.kill_group(process, signal.SIGTERM)
        assert process.wait(timeout=600) == 1
    words = [line for line in run.printed(tmp_path).splitlines() if line.strip()][-1]
    assert re.fullmatch(
        r"\[customize_part \d{4}\] error: ended by SIGTERM; run the same command again.*", words
    )
    assert not run.leftovers(tmp_path)
    run.finish(tmp_path, config)
    deltas = {path: written for path, written in kept.items() if "/deltas/" in path}
    assert len(deltas) == 2 and deltas.items() <= run.done(tmp_path).items()
    run.same(run.contents(tmp_path), run.contents(quiet))


def test_a_full_disk_is_named_and_loses_nothing(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    quiet, config = undisturbed
    results = tmp_path / "results"
    results.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(results)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk could be mounted: {mounted.stderr.strip()}")
    try:
        copy_without(undisturbed, tmp_path, "indices/*/*", *FROM_RANKING)
        filler = results / "filler"
        with filler.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(results).free - 16 * 4096)
        process = run.start(tmp_path, config)
        assert process.wait(timeout=600) == 1
        words = [line for line in run.printed(tmp_path).splitlines() if line.strip()][-1]
        assert re.match(r"\[\w+ .*\] error: results/tiny/\S+: no room left \(disk\); make room", words), words
        assert not run.leftovers(tmp_path)
        filler.unlink()
        run.finish(tmp_path, config)
        run.same(run.contents(tmp_path), run.contents(quiet))
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def test_of_two_at_once_one_is_refused(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    quiet, config = undisturbed
    copy_without(undisturbed, tmp_path, "embeddings/*/pool/*", "mappers/*/*", "indices/*/*", *FROM_RANKING)
    both = [run.start(tmp_path, config, out=f"printed-{number}.txt") for number in range(2)]
    assert sorted(process.wait(timeout=600) for process in both) == [0, 1]
    refused = next(number for number, process in enumerate(both) if process.returncode)
    words = run.printed(tmp_path, f"printed-{refused}.txt").splitlines()[-1]
    assert re.match(
        r"Error: run 'tiny': another Snakemake is at work on it \(process \d+ on \S+ since .*\); wait", words
    ), words
    run.finish(tmp_path, config)
    run.same(run.contents(tmp_path), run.contents(quiet))


def test_while_a_run_works_dry_runs_are_allowed_and_a_second_call_is_refused(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    """The second call is refused before it plans jobs, which would repeat what the first finishes."""
    _, config = undisturbed
    copy_without(undisturbed, tmp_path, "report/*")
    with (tmp_path / ".snakemake/attrib_core/tiny.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dry_run = run.start(tmp_path, config, "--dry-run")
        assert dry_run.wait(timeout=600) == 0, run.printed(tmp_path)
        late = run.start(tmp_path, config)
        assert late.wait(timeout=600) == 1
        assert "another Snakemake is at work on it" in run.printed(tmp_path).splitlines()[-1]
    run.finish(tmp_path, config)


def test_on_a_file_system_with_unreliable_locks_snakemakes_own_lock_is_used(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    """With a warning; after a kill a person must unlock: nothing else knows whether another machine works."""
    _, config = undisturbed
    copy_without(undisturbed, tmp_path, "report/*")
    (tmp_path / "mounts").write_text("server / beegfs rw 0 0\n")

    def call(*arguments: str) -> subprocess.Popen[str]:
        return run.start(tmp_path, config, *arguments, mounts=tmp_path / "mounts")

    locks = tmp_path / ".snakemake" / "locks"
    process = call()
    assert run.wait_for(process, lambda: run.jobs_begun(tmp_path, (tmp_path / "mounts").stat().st_mtime_ns))
    assert len(list(locks.iterdir())) == 2
    run.kill_group(process)
    assert "may keep locks from other machines. So Snakemake's own lock" in run.printed(tmp_path)
    assert call().wait(timeout=600) == 1
    assert "--unlock argument" in run.printed(tmp_path)
    assert len(list(locks.iterdir())) == 2  # a refused call removes nothing
    assert call("--unlock").wait(timeout=600) == 0
    assert call().wait(timeout=600) == 0, run.printed(tmp_path)[-4000:]
    assert not locks.exists() or not list(locks.iterdir())
