"""`python -m attrib_core why`: what a rule depends on, and which part changed since it ran."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attrib_core.cli import main as command_line
from attrib_core.cli import why
from attrib_core.common.errors import InputError
from attrib_core.runtime import job_records
from attrib_core.runtime.provenance import rerun_page, rerun_reasons, rerun_table, workflow_jobs
from attrib_core.runtime.provenance.workflow_jobs import Job, Plan
from attrib_core.storage import tables
from tests.conftest import Named
from tests.workflow_fixtures import TINY

RUN = Path("results/tiny")
NOW = {
    "code": {
        "attrib_core.attribution.ranking.rank.rank": "1",
        "attrib_core.features.heads.heads.load": "1",
        "rank.py:np": "0",
    },
    "files": {"weights.pth": "1"},
    "packages": {"numpy": "2.0"},
}
CONFIG = {"ranking": {"top_k": 10, "bins": 64, "query_block": 512}, "metrics": {"ties": "half"}}


def jobs(**params: Any) -> list[Job]:
    """Ranking with two mappers, after a job that writes their input."""
    given = {"settings": {"top_k": 10, "bins": 64}, "code": "now"} | params
    first = Job("exemplars", {}, [], [f"{RUN}/exemplars"], {"seed": 7}, [])
    ranks = [
        Job("rank", {"mapper": mapper}, [f"{RUN}/exemplars"], [f"{RUN}/{mapper}"], given, ["blocks"])
        for mapper in ("untuned", "linear")
    ]
    return [first, *ranks]


def plan(coverage: dict[str, dict[str, str]] = NOW, **params: Any) -> Plan:
    return Plan(RUN, CONFIG, jobs(**params), {"now": coverage, "new": coverage})


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RUN.mkdir(parents=True)
    for second, job in enumerate(jobs()):
        for name in job.output:
            Path(name).write_text(name)
            os.utime(name, (second, second))
        job_records.save(
            SimpleNamespace(
                rule=job.rule,
                wildcards=Named(job.wildcards),
                params=Named({**job.params, **dict.fromkeys(job.untracked, 1)}),
                input=Named(job.input),
                output=Named(job.output),
                log=[f"{RUN}/logs/{job.rule}.log"],
            )
        )
    job_records.save_coverage(RUN, "now", NOW)


def lines(plan: Plan, rule: str = "rank") -> list[str]:
    return [line.strip() for line in why.changed(plan, plan.of(rule))]


def test_it_lists_what_a_rule_covers(finished: None) -> None:
    output = "\n".join(why.covered(plan(), plan().of("rank")))
    for words in (
        "rank: 2 jobs of results/tiny",
        "ranking.top_k: 10",
        "ranking.bins: 64",
        "attrib_core.attribution.ranking.rank: rank",
        "data file weights.pth",
        "package numpy 2.0",
    ):
        assert words in output
    for words in ("query_block", "metrics.ties", "rank.py:"):
        assert words not in output


def test_nothing_changed(finished: None) -> None:
    assert lines(plan()) == ["nothing changed since it ran"]


def test_another_value_of_a_key(finished: None) -> None:
    changed_plan = plan(settings={"top_k": 12, "bins": 64})
    assert lines(changed_plan) == ["changed since it ran", "ranking.top_k: 10 -> 12"]


def test_other_code_data_and_packages(finished: None) -> None:
    coverage = {
        "code": {
            "attrib_core.attribution.ranking.rank.rank": "2",
            "attrib_core.attribution.ranking.top_k": "1",
            "rank.py:np": "0",
        },
        "files": {"weights.pth": "2"},
        "packages": {"numpy": "2.1"},
    }
    assert lines(plan(coverage, code="new"))[1:] == [
        "code, code changed: attrib_core.attribution.ranking.rank.rank",
        "code, code new: attrib_core.attribution.ranking.top_k",
        "code, code no longer used: attrib_core.features.heads.heads.load",
        "code, data file changed: weights.pth",
        "code, package changed: numpy 2.0 -> 2.1",
    ]


def test_code_of_an_earlier_layout_of_the_package_is_one_line(finished: None) -> None:
    before = NOW | {"code": {"attrib_core.heads.load": "1", "attrib_core.ranking.rank": "1"}}
    tables.write_json(RUN / "records/fingerprints/now.json", before)
    changed_plan = plan(code="new")
    assert lines(changed_plan)[1:] == [
        "code: an earlier version of attrib_core ran it, whose modules have moved since"
    ]


def test_a_fingerprint_without_a_record(finished: None) -> None:
    (RUN / "records/fingerprints/now.json").unlink()
    assert "is not recorded" in lines(plan(code="new"))[1]


def test_added_and_removed_params_are_named_but_not_untracked_ones(finished: None) -> None:
    changed_plan = plan(seed=1)
    assert lines(changed_plan)[1:] == ["param seed: new"]
    gone = Plan(RUN, CONFIG, [Job(**{**vars(job), "untracked": []}) for job in jobs()], {"now": NOW})
    assert lines(gone)[1:] == ["param blocks: removed"]


def test_missing_files_newer_inputs_and_missing_records_are_named(finished: None) -> None:
    (RUN / "linear").unlink()
    assert lines(plan())[1:] == ["missing: results/tiny/linear (mapper linear)"]
    os.utime(RUN / "exemplars", (50, 50))
    assert "inputs written since: results/tiny/exemplars (mapper untuned)" in lines(plan())
    (RUN / "records/rank/untuned.json").unlink()
    assert "no record of the job, so only modification times can be compared (mapper untuned)" in lines(
        plan()
    )


def test_a_temporary_output_is_not_missing(finished: None) -> None:
    (RUN / "linear").unlink()

    def temporary(changed_plan: Plan) -> Plan:
        found = [Job(**{**vars(job), "temporary": [f"{RUN}/linear"]}) for job in changed_plan.jobs]
        return Plan(changed_plan.run, changed_plan.config, found, changed_plan.coverages)

    assert lines(temporary(plan())) == ["nothing changed since it ran"]
    changed = temporary(plan(settings={"top_k": 12, "bins": 64}))
    assert lines(changed) == ["changed since it ran", "ranking.top_k: 10 -> 12"]


def test_a_change_upstream_is_named(finished: None) -> None:
    changed_plan = plan()
    changed_plan.jobs[0] = Job(**{**vars(changed_plan.jobs[0]), "params": {"seed": 8}})
    assert lines(changed_plan)[-1] == "inputs will be recomputed, because of changes in: exemplars"


def test_an_unknown_rule_is_one_line_with_similar_names(finished: None) -> None:
    with pytest.raises(InputError, match="ranc: no such rule, did you mean 'rank'"):
        plan().of("ranc")


def test_errors_of_the_command_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["why", "rank", "--config", "none.yaml"]) == 2
    assert "none.yaml: no such config file" in capsys.readouterr().err
    monkeypatch.setattr(workflow_jobs, "SCRIPT", tmp_path / "rules" / "list_jobs.py")
    (tmp_path / "mine.yaml").write_text("")
    assert command_line.main(["why", "rank", "--config", "mine.yaml"]) == 2
    assert "no workflow here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_workflow_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["why", "customize_parts", "--config", str(TINY)]) == 2
    assert "did you mean 'customize_part'" in capsys.readouterr().err
    assert command_line.main(["why", "customize_part", "--config", str(TINY)]) == 0
    output = capsys.readouterr().out
    for words in (
        "customizer.steps: 2",
        "package torch",
        "attrib_core.diffusion.customization.model_stack",
        "missing: results/tiny/models",
    ):
        assert words in output
    assert command_line.main(["why", "report", "--config", str(TINY)]) == 0
    assert "package torch" not in capsys.readouterr().out
    assert command_line.main(["why", "base_model_recipe", "--config", str(TINY)]) == 0
    assert "attrib_core.diffusion.base_recipe.denoiser" in capsys.readouterr().out
    (tmp_path / "wrong.yaml").write_text("seed: soon")
    assert command_line.main(["why", "rank", "--config", "wrong.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: seed: ")
    assert not (tmp_path / "results").exists()


def test_the_row_that_names_the_key_takes_precedence() -> None:
    rows = [
        rerun_table.Row("key", "customizer.*", frozenset({"a"}), frozenset()),
        rerun_table.Row("key", "customizer.steps", frozenset({"b"}), frozenset()),
        rerun_table.Row("event", "customizer.family", frozenset({"c"}), frozenset()),
    ]
    found: Callable[[str], Any] = lambda key: rerun_table.find("key", key, rows)  # noqa: E731
    assert found("customizer.steps") == rows[1] and found("customizer.family") == rows[0]
    assert found("seed") is None


def test_the_page_abbreviates_lists_of_rules() -> None:
    assert rerun_page._rules([]) == "nothing"
    every = set(rerun_page.ORDER)
    assert rerun_page._rules(every) == "all"
    assert rerun_page._rules(every - {"pool_part"}) == "all but pool_part"
    assert rerun_page._rules(every - rerun_page.EMBED) == "all but embed"
    assert rerun_page._rules(["report", "rank"]) == "rank, report"
    assert rerun_page._rules([*rerun_page.EMBED, "tune"]) == "embed, tune"
    assert every == {rule for row in rerun_table.rows() for rule in row.runs}


def test_long_lists_end_in_a_count() -> None:
    assert rerun_reasons._some([str(number) for number in range(8)]) == "0, 1, 2, 3, 4, 5 and 2 more"
