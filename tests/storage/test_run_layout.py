"""The paths of a run: templates with the wildcards of the rules, and the files that fit them."""

from __future__ import annotations

import re
import string
from pathlib import Path

from attrib_core.storage import rerun_hints, run_layout

TEMPLATES = {
    name: value for name, value in vars(run_layout).items() if name.isupper() and isinstance(value, str)
}


def test_every_template_has_known_wildcards_and_its_own_path() -> None:
    for template in TEMPLATES.values():
        used = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        assert used <= {"part", "encoder", "mapper", "plot", "table", "job"}, template
    assert len(set(TEMPLATES.values())) == len(TEMPLATES)


def test_logs_and_benchmark_files_are_named_after_the_jobs_of_a_rule() -> None:
    assert (
        run_layout.log("results/a", "embed_pool_part")
        == "results/a/logs/embed_pool_part/{encoder}-{part}.log"
    )
    assert run_layout.benchmark("results/a", "measure") == "results/a/benchmarks/measure/all.tsv"


def test_paths_have_values_for_wildcards(tmp_path: Path) -> None:
    found = run_layout.path(tmp_path, run_layout.MAPPER, encoder="clip", mapper="linear-both")
    assert found == tmp_path / "mappers/clip/linear-both.safetensors"
    folder = run_layout.folder(tmp_path, run_layout.POOL_EMBEDDINGS, encoder="clip")
    assert folder == tmp_path / "embeddings/clip/pool"


def test_parts_are_found_in_rising_order_and_by_their_table(tmp_path: Path) -> None:
    assert run_layout.find_parts(tmp_path, run_layout.POOL_PART) == {}
    for part in ("0010", "0002"):
        for template in (run_layout.POOL_PART, run_layout.POOL_REJECTS):
            path = run_layout.path(tmp_path, template, part=part)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    found = run_layout.find_parts(tmp_path, run_layout.POOL_PART)
    assert list(found) == ["0002", "0010"]
    assert found["0010"] == tmp_path / "pool/part-0010.parquet"


def test_documentation_has_placeholders_for_wildcards() -> None:
    written = run_layout.documented(run_layout.QUERY_EMBEDDINGS)
    assert written == "embeddings/<encoder>/queries/part-*.parquet"


def test_a_table_names_the_rule_that_writes_it(tmp_path: Path) -> None:
    for file in (Path(__file__).parents[2] / "rules").glob("*.smk"):
        for rule in re.split(r"^(?=rule )", file.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            output = re.search(r"^    output:\n(.*?)^    \w", rule, re.MULTILINE | re.DOTALL)
            for name in re.findall(r"run_layout\.([A-Z_]+)", output[1] if output else ""):
                template = getattr(run_layout, name)
                if template.endswith(".parquet"):
                    assert rerun_hints.WRITERS.get(template) == rule.split()[1].rstrip(":"), (file, name)
    tables = {template for template in TEMPLATES.values() if template.endswith(".parquet")}
    assert set(rerun_hints.WRITERS) == tables
    path = run_layout.path(tmp_path, run_layout.POOL_EMBEDDINGS, encoder="clip", part="0001")
    assert rerun_hints.rule_of(path) is None  # no run
    (tmp_path / run_layout.RECORDS).mkdir()
    assert rerun_hints.rule_of(path) == "embed_pool_part"
    assert rerun_hints.rule_of(tmp_path / "metrics.parquet") == "measure"
    assert rerun_hints.rule_of(tmp_path / "other.parquet") is None
    assert rerun_hints.rule_of(Path("metrics.parquet")) is None
