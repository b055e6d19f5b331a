"""Files from outside are opened in few places; see `gates.GATES`, which is changed with the code."""

from __future__ import annotations

import re

import pytest

from tests.project import gates


def test_every_call_that_opens_something_is_at_a_gate() -> None:
    allowed = gates.gates()
    new = [
        f"{name}:{line}: {text} ({kind})"
        for kind, name, line, text in gates.calls()
        if (kind, name) not in allowed
    ]
    assert not new, "use the gate of that kind, or say in gates.GATES why not:\n" + "\n".join(new)


def test_the_table_names_no_call_that_is_gone() -> None:
    made = {(kind, name) for kind, name, _, _ in gates.calls()}
    assert set(gates.gates()) <= made, sorted(set(gates.gates()) - made)
    entries = [
        (kind, name) for kind, rows in gates.GATES.items() for names, _ in rows for name in names.split()
    ]
    assert len(entries) == len(set(entries))


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("import torch\ntorch.load(path)", ["torch"]),
        ("import torch as t\nt.jit.load(path)", ["torch"]),
        ("from torch import load as read\nread(path)", ["torch"]),
        ("import numpy as np\nnp.load(path)", ["numpy"]),
        ("import numpy\nnumpy.fromfile(path)", ["numpy"]),
        ("from numpy import memmap\nmemmap(path)", ["numpy"]),
        ("import pyarrow.parquet as pq\nmap(pq.read_table, paths)", ["parquet"]),
        ("import pyarrow.parquet as parquet\nparquet.ParquetFile(path)", ["parquet"]),
        ("from pyarrow import dataset\ndataset.dataset(path)", ["parquet"]),
        ("import pandas as pd\npd.read_csv(path)", ["parquet"]),
        ("from safetensors import safe_open\nsafe_open(path)", ["safetensors"]),
        ("from safetensors.torch import load_file as lf\nlf(path)", ["safetensors"]),
        ("from diffusers import Pipe\nPipe.from_pretrained(path)", ["pretrained"]),
        ("import pickle\npickle.loads(data)", ["pickle"]),
        ("from zipfile import ZipFile\nZipFile(path)", ["archive"]),
        ("from PIL import Image\nImage.open(path)", ["image"]),
        ("import yaml\nyaml.safe_load(text)", ["yaml"]),
        ("import csv\ncsv.DictReader(stream)", ["csv"]),
        ("from json import loads\nloads(text)", ["json"]),
        ("import subprocess\nsubprocess.run([])", ["program"]),
        ("open(path)", ["bytes"]),
        ("path.read_text()", ["bytes"]),
        ("(folder / name).open()", ["bytes"]),
        ("from attrib_core.storage import numpy_files\nnumpy_files.read(path)", []),
        ("import numpy as np\nnp.save(path, a)\nopened = 1\nprint(opened)", []),
    ],
)
def test_calls_are_found_by_whatever_name(source: str, kinds: list[str]) -> None:
    assert [kind for kind, _, _ in gates.calls_of(source)] == kinds


def test_the_rules_open_nothing_themselves() -> None:
    opening = re.compile(
        r"(?<![\w.])(open|[\w.]+\.(read_(text|bytes|table|csv)|open|\w*load|loads|run|memmap|from_pretrained))\("
    )
    rules = [gates.ROOT / "Snakefile", *(gates.ROOT / "rules").glob("*.smk")]
    found = [f"{path.name}: {one[1]}" for path in rules for one in opening.finditer(path.read_text("utf-8"))]
    assert found == []
