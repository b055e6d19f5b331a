"""Where the package opens files: kinds of calls, and the modules that may make them, each with a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

KINDS: dict[str, str] = {
    "torch": r"torch\.(load|jit\.load|from_file|\w*Storage\.from_file)",
    "numpy": r"numpy\.(load|fromfile|memmap|loadtxt|genfromtxt|lib\.format\.\w+)",
    "parquet": r"pyarrow\.(parquet\.(read_\w+|Parquet(File|Dataset))|dataset\.dataset|(ipc|csv|json|feather)\.\w+"
    r"|memory_map|OSFile)|pandas\.read_\w+",
    "safetensors": r"safetensors(\.\w+)?\.(load|load_file|safe_open)",
    "pretrained": r".*\.(from_pretrained|from_single_file)",
    "pickle": r"(pickle|dill|joblib|marshal|shelve)\.(load|loads|Unpickler|open)",
    "archive": r"zipfile\.(ZipFile|is_zipfile)|(tarfile|gzip|bz2|lzma)\.open",
    "map": r"mmap\.mmap",
    "image": r"PIL\.Image\.open|PIL\.ImageFile\.Parser",
    "yaml": r"yaml\.(\w*load\w*|parse|compose)",
    "csv": r"csv\.(reader|DictReader)",
    "json": r"json\.(load|loads)",
    "toml": r"tomllib\.(load|loads)",
    "index": r"faiss\.(read|deserialize)_\w+",
    "program": r"subprocess\.\w+|os\.(system|popen|exec\w+|spawn\w+)",
    "bytes": r"open|io\.open|os\.open|.*\.(read_text|read_bytes|open)",
}
"""Regular expressions of the calls, by kind, with the full names of modules. The first kind that fits counts."""


def gates() -> dict[tuple[str, str], str]:
    """Return the reason by kind and module."""
    return {
        (kind, module): reason
        for kind, modules in GATES.items()
        for names, reason in modules
        for module in names.split()
    }


def calls() -> Iterator[tuple[str, str, int, str]]:
    """Yield kind, module, line and text of all calls that open something, in the package and the workflow."""
    files = [
        path
        for folder in ("attrib_core", "workflow_scripts", "rules")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for path in sorted(files):
        name = path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("attrib_core/")
        yield from ((kind, name, line, text) for kind, line, text in calls_of(path.read_text("utf-8")))


def calls_of(source: str) -> Iterator[tuple[str, int, str]]:
    """Yield kind, line and text of the calls of a source that open something, by whatever name they were imported."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        # also where a function is handed on, as in map(pq.read_table, paths)
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            text = ast.unparse(node)
            first, dot, rest = text.partition(".")
            full = f"{names.get(first, first)}{dot}{rest}"
            kind = next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, full)), None)
            if kind is not None and not _is_error(text):
                yield kind, node.lineno, text


def _is_error(text: str) -> bool:
    """Return whether a name is a class or a constant of a module, such as subprocess.PIPE."""
    last = text.rpartition(".")[2]
    return last.isupper() or last.endswith(("Error", "Expired"))


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield names in a source, and what they are: `from pickle import loads as l` gives ("l", "pickle.loads")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


MADE = "read what this package wrote, whole or not at all"
SHIPPED = "read a file of this package or of one that it depends on"
WRITES = "write"
LOCKS = "lock files and folders"
SYSTEM = "read what the system says of processors, memory and processes"

GATES: dict[str, list[tuple[str, str]]] = {
    "torch": [
        ("storage/torch_files storage/torch_archive", "the gate: plain data only"),
        ("features/encoders/torchscript", "the gate for programs, by checksum"),
        ("abc_benchmark/feature_files", "map what was written a moment before"),
    ],
    "numpy": [
        ("storage/numpy_files", "the gate: numbers only"),
        ("abc_benchmark/feature_files", "map a block of what a gate has checked"),
        ("diffusion/base_recipe/train", WRITES),
    ],
    "parquet": [
        ("storage/parquet_files", "the gate"),
        ("storage/store/pieces", "read pieces of the store, by checksum"),
    ],
    "safetensors": [
        ("storage/safetensors_files", "the gate"),
        ("features/heads/head_files diffusion/deltas/delta_files", MADE),
        ("diffusion/pipeline/unet_weights", "read some tensors of a file whose header a gate has checked"),
    ],
    "pretrained": [
        ("diffusion/pipeline/components diffusion/pipeline/networks", "the gate for base models"),
        ("features/networks/transformers_loader", "the gate for networks of transformers"),
        (
            "features/encoders/transformers features/encoders/text/transformers_towers",
            "read settings next to weights",
        ),
        ("diffusion/base_recipe/train", MADE),
    ],
    "archive": [
        ("storage/file_kinds", "read the names of entries"),
        ("storage/torch_archive", "see whether values can be read in place"),
    ],
    "image": [
        ("data/images data/image_modes", "the gate"),
        ("data/drawing/render", "read what was drawn a moment before"),
    ],
    "yaml": [
        ("storage/yaml_files", "the gate"),
    ],
    "csv": [
        ("data/metadata_rows", "the gate for tables of captions"),
        ("config/planning/rates report/sections/timings", "read what Snakemake wrote"),
        ("data/drawing/render runtime/provenance/rerun_table", SHIPPED),
    ],
    "json": [
        ("storage/text_files", "the gate"),
        ("data/metadata_rows", "the gate for JSON lines of captions"),
        ("storage/yaml_files", "read a config that is JSON"),
        ("storage/safetensors_files", "read the header of weights"),
        ("features/networks/transformers_loader", "read the settings of a network"),
        (
            "storage/digests storage/store/garbage_collection storage/store/pieces storage/store/references",
            MADE,
        ),
        ("runtime/job_records runtime/run_lock diffusion/customization/train_stack", MADE),
        (
            "attribution/single_image/finished_run features/embedding/embedding_tables features/heads/head_files",
            MADE,
        ),
        ("workflow_scripts/exemplars diffusion/base_recipe/export diffusion/base_recipe/tokenizer", MADE),
        ("data/pool", "copy options"),
        ("runtime/provenance/workflow_jobs", "read what rules/list_jobs.py printed"),
    ],
    "toml": [("common/families config/planning/rates features/encoders/timm/weights", SHIPPED)],
    "index": [("features/index/build features/index/inverted_lists", MADE)],
    "program": [
        ("runtime/devices", "list GPUs"),
        ("runtime/provenance/workflow_jobs", "ask Snakemake for the jobs of a config"),
    ],
    "bytes": [
        ("storage/text_files storage/relative_paths", "the gates for texts, and for files below a folder"),
        (
            "storage/safetensors_files storage/numpy_files",
            "the gates for weights, and for arrays: their headers",
        ),
        ("attribution/single_image/attribute", "the image of a query"),
        ("data/metadata_table", "a table that the gate for texts has checked"),
        ("diffusion/pipeline/weight_files", "files of base models"),
        ("features/networks/transformers_loader", "settings of a network"),
        ("diffusion/deltas/delta_files", "deltas"),
        ("common/hashing storage/file_kinds storage/torch_archive", "of any file"),
        (
            "config/planning/rates config/planning/status report/sections/timings runtime/failure_summary",
            "of Snakemake",
        ),
        ("data/drawing/render data/sources/openmoji common/families features/encoders/timm/weights", SHIPPED),
        ("report/page runtime/provenance/definitions runtime/provenance/rerun_table cli/docs", SHIPPED),
        ("diffusion/base_recipe/checkpoints diffusion/base_recipe/export diffusion/base_recipe/train", MADE),
        (
            "diffusion/customization/train_stack workflow_scripts/exemplars runtime/job_records storage/digests",
            MADE,
        ),
        ("storage/store/garbage_collection storage/store/pieces storage/store/references", MADE),
        ("abc_benchmark/feature_files features/index/inverted_lists report/sections/tables", WRITES),
        ("storage/torch_files storage/atomic", WRITES),
        ("runtime/devices runtime/run_lock storage/store/locks cli/main", LOCKS),
        ("runtime/hardware", SYSTEM),
    ],
}
"""By kind of call: the modules that may make it, below attrib_core or in the workflow, and what for."""
