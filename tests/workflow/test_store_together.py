"""Two runs at the same time in one folder: common results are computed once, and all results are the same."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from attrib_core.cli.main import main
from attrib_core.storage.store import pieces
from tests.workflow import kill_fixtures as run
from tests.workflow_fixtures import ROOT, config_file

pytestmark = pytest.mark.slow
UNTIL = ("--until", "embed_pool_part", "embed_exemplars", "embed_queries_part", "sample_part")
"""The rules that use the store, and those that they depend on."""
SMALL: dict[str, Any] = {
    "parts": {"pool_images": 120, "exemplar_sets": 8},
    "synthesis": {"image_format": "jpeg", "quality": 80},
}
SETS = 7
# As `sitecustomize`, which Python imports at startup, in each job of a run: the two runs wait for each other before
# they claim keys of a kind, and again when each has claimed its first models. So both find nothing stored, and neither
# trains all models, whichever is faster. The keys that each claims are written to files.
MEETING = """
import sys
if {root!r} in sys.path:  # a job, not Snakemake itself
    import pathlib, time
    from attrib_core.storage.store import claims
    real, place = claims.turns, pathlib.Path({place!r})
    def meet(when):
        (place / f"{{when}}, {own}").touch()
        while not (place / f"{{when}}, {other}").exists():
            time.sleep(0.05)
    def turns(folder, groups, finished, *, what):
        meet(f"begin {{what}}")
        for mine in real(folder, groups, finished, what=what):
            with (place / f"{own} {{folder.name}}").open("a") as claimed:
                claimed.write("".join(f"{{key}}\\n" for key in mine))
            if what == "models":
                meet("have models")
            yield mine
    claims.turns = turns
"""


def test_two_runs_at_once_compute_each_result_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run keeps a sample of its images, the other all; the results do not depend on timing."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a waiting run would hold a single GPU
    alone, folder = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    run.finish(alone, config_file(alone / "alone.yaml", run="alone", **SMALL), *UNTIL)
    expected = run.contents(alone, Path("results/alone"))

    keeps, meeting = {"full": "all", "part": "sample"}, folder / "meeting"
    meeting.mkdir(parents=True)
    processes = []
    try:
        for (own, keep), other in zip(keeps.items(), reversed(keeps), strict=True):
            modules = folder / f"modules of {own}"
            modules.mkdir()
            (modules / "sitecustomize.py").write_text(
                MEETING.format(root=str(ROOT), place=str(meeting), own=own, other=other)
            )
            changed = SMALL | {"synthesis": SMALL["synthesis"] | {"keep": keep}}
            config = config_file(folder / f"{own}.yaml", run=own, **changed)
            processes.append(run.start(folder, config, *UNTIL, cores=1, out=f"{own}.txt", modules=modules))
        for process in processes:  # until it ends, or until one fails, for which the other would wait
            run.wait_for(process, lambda: any(other.poll() not in (None, 0) for other in processes))
    finally:
        for process in processes:
            run.kill_group(process)
    output = "".join(run.printed(folder, f"{own}.txt") for own in keeps)
    assert [process.returncode for process in processes] == [0, 0], output[-8000:]

    store = folder / "results/store"
    for kind, count in (("deltas", SETS), ("synthesized", SETS), ("prior", None)):
        shares = [(meeting / f"{own} {kind}") for own in keeps]
        claimed = Counter(key for share in shares if share.exists() for key in share.read_text().split())
        assert set(claimed.values()) == {1}, f"{kind}: nothing is computed twice"
        assert claimed.keys() == {record.stem for record in (store / kind).glob("*.json")}
        assert count is None or len(claimed) == count
        assert kind != "deltas" or all(share.exists() for share in shares), "both have trained"
    logs = "".join(path.read_text() for path in folder.glob("results/*/logs/customize_part/*.log"))
    assert sum(map(int, re.findall(r"customized (\d+) sets", logs))) == SETS

    run.same(expected, run.contents(folder, Path("results/full")))
    ours = run.contents(folder, Path("results/part"))
    assert ours.pop("refers/synthesize_part/0000.json")["keys"] == []
    dropped = ("synthesized/part-0000.parquet", "refers/synthesize_part/0000.json")
    run.same({name: value for name, value in expected.items() if name not in dropped}, ours)
    assert main(["store", "verify", "--results", str(folder / "results")]) == 0
    (part,) = (folder / "results/full/synthesized").glob("part-*.parquet")
    held = {pieces.lookup(path.parent, path.stem).file for path in (store / "synthesized").glob("*.json")}  # type: ignore[union-attr]
    assert len(held) == 1 and held.pop().samefile(part), "the images are stored once"
    assert not run.leftovers(folder)
