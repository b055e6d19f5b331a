"""Features of a test case in the released layout, made from its images by an encoder of this project.

The JSON says which images belong to which model; the file of features keeps its order and paths, so
that the published code and `abc evaluate` both read it. Two keys more than the released files have are
written: `class_ids`, and `categories` as they are meant (four released entries read "exemplar" where
"train" is meant). A JSON with another scheme in some entries is taken as it comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from attrib_core.abc_benchmark.test_cases import Description, read_descriptions
from attrib_core.common import families
from attrib_core.common.errors import InputError, close_matches
from attrib_core.features.embedding import encoder_protocol, encoding
from attrib_core.features.embedding.rows import Row
from attrib_core.storage import torch_files


def section(name: str, config: Path | None, options: Sequence[str]) -> dict[str, Any]:
    """The section of an encoder, checked: a preset or family, or with a config an encoder of that.

    `options` are "key=value", the value as YAML, and count before what the name stands for.
    """
    if config is None:
        known = {one: {"preset": one} for one in families.presets("encoders")}
        known |= {one: {"family": one} for one in families.names("encoders") if one not in known}
    else:
        known = _encoders(config)
    if name not in known:
        raise InputError(f"--encoder: no {name!r}, {close_matches(name, known)}")
    given: dict[str, Any] = dict(known[name])
    for option in options:
        key, equals, value = option.partition("=")
        if not key or not equals:
            raise InputError(f"--set: {option!r}; expected KEY=VALUE, such as weights=PATH")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            given[key] = value
    whole = families.with_preset("encoders", given, "--encoder")
    if not isinstance(whole.get("family"), str):
        raise InputError(
            f"--encoder: {name!r} of {config} names no family and no preset; expected one of them"
        )
    return families.complete("encoders", whole, "--encoder")


def _encoders(config: Path) -> dict[str, dict[str, Any]]:
    """The encoders of a config. Of the rest of it nothing is asked."""
    try:
        found = yaml.safe_load(config.read_text("utf-8"))["encoders"]
        return {str(name): dict(one) for name, one in found.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config: {config} cannot be read: {' '.join(str(error).split())}") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"--config: {config} has no encoders; expected the key, with a section for each name"
        ) from None


def embed(
    testcase: Path, images: Path, encoder: encoder_protocol.Encoder, out: Path, *, threads: int = -1
) -> Iterator[str]:
    """Write the features of a JSON of test cases; yields a line about each group of images, then the file.

    Images are `images` / the path in the JSON. All are looked for before the first is read. Raises
    InputError for a missing or broken image, named with its place in the JSON, and for an encoder that reads
    words, which a JSON of test cases does not have; writes nothing then.
    """
    check_reads(encoder, str(testcase))
    entries = read_descriptions(testcase)
    kinds = list(dict.fromkeys(kind for entry in entries for kind in entry.synth))
    exemplars = [path for entry in entries for path in entry.exemplar]
    synth = {kind: [path for entry in entries for path in entry.synth.get(kind, [])] for kind in kinds}
    _all_there(testcase, images, entries)
    ends = np.cumsum([len(entry.exemplar) for entry in entries]).tolist()
    content: dict[str, Any] = {
        "exemplar_paths": exemplars,
        "exemplar_chunks": list(zip([0, *ends[:-1]], ends, strict=True)),
        "exemplar_tensors": _tensor(exemplars, images, encoder, threads),
        "synth_paths": synth,
        "synth_ids": {
            kind: [number for number, entry in enumerate(entries) for _ in entry.synth.get(kind, [])]
            for kind in kinds
        },
        "synth_tensors": {},
        "class_ids": [entry.class_id for entry in entries],
        "categories": [entry.category for entry in entries],
    }
    yield f"{len(entries)} models, {len(exemplars)} exemplars, {encoder.dim} features"
    for kind in kinds:
        content["synth_tensors"][kind] = _tensor(synth[kind], images, encoder, threads)
        yield f"{kind}: {len(synth[kind])} synthesized images"
    torch_files.save(content, out)
    yield f"wrote {out}"


def check_reads(encoder: encoder_protocol.Encoder, where: str) -> None:
    """InputError for an encoder that reads words; `where` names what gives it images alone."""
    if encoder_protocol.reads(encoder) != "images":
        raise InputError(
            f"--encoder: {encoder.identity['family']!r} reads words, and {where} has images alone; expected an"
            " encoder of images"
        )


def _all_there(testcase: Path, images: Path, entries: Sequence[Description]) -> None:
    for number, entry in enumerate(entries):
        groups: Mapping[str, list[str]] = {"exemplar": entry.exemplar} | entry.synth
        for group, paths in groups.items():
            for path in paths:
                if not (images / path).is_file():
                    raise InputError(
                        f"{testcase}: entry {number}, {group}: no file {images / path};"
                        " expected --images to be the folder that the paths start from"
                    )


def _tensor(paths: Sequence[str], images: Path, encoder: encoder_protocol.Encoder, threads: int) -> Any:
    """(paths, dim) float32 features in the order of the paths."""
    import torch

    rows = (Row(path, (images / path).read_bytes(), None, str(images / path)) for path in paths)
    values = np.empty((len(paths), encoder.dim), dtype=np.float32)
    done = 0
    for names, features in encoding.encoded(
        rows, encoder, where=str(images), total=len(paths), threads=threads
    ):
        values[done : done + len(names)] = features
        done += len(names)
    return torch.from_numpy(values)
