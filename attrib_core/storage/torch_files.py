"""Read and write files of `torch.save` that hold plain data: the only place that opens them. No code in them is run."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attrib_core.common.errors import InputError, reason
from attrib_core.storage import atomic, torch_archive
from attrib_core.storage.file_kinds import Kind, wrong_kind

PLAIN = "only tensors, numbers, strings, lists, tuples and dictionaries are read"
EXPECTED = "a file of torch.save"
READABLE = (Kind.TORCH, Kind.TORCH_OLD, Kind.PICKLE, Kind.ZIP)
MAX_KEYS_IN_MESSAGE = 8
MAX_LETTERS_OF_A_KEY = 60


def read(path: Path, *, tensors: Literal["memory", "mapped"] = "memory") -> Any:
    """Return what `torch.save` wrote, on the CPU, if it is plain data.

    tensors  'memory': read into memory; 'mapped': memory maps of the file. The format from before 2020 is no zip file
             and is always read into memory, and so is a file that was compressed or changed since.

    Raises InputError for a file that is missing, broken, another kind of file, or needs code to unpickle, and for a
    content that is nested too deep, as a list in itself.
    """
    if tensors == "mapped":
        return read_with_places(path)[0]
    wrong_kind(path, EXPECTED, *READABLE)
    return _loaded(path, mmap=False)


def read_with_places(path: Path) -> tuple[Any, torch_archive.Shapes | None]:
    """Return the content of a file, mapped where that is safe, and then also where its tensors are in it.

    Errors as in `read`.
    """
    wrong_kind(path, EXPECTED, *READABLE)
    shapes = torch_archive.read_shapes(path)
    try:
        mmap = shapes is not None and shapes.can_be_mapped()
    except Exception:  # reading the file itself says what is wrong, or reads it
        mmap = False
    return _loaded(path, mmap=mmap), shapes if mmap else None


def _loaded(path: Path, *, mmap: bool) -> Any:
    import torch

    try:
        torch_archive.check_entries(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sparse tensors, quantized tensors and the like
            content = torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
        for _ in torch_archive.tensors(content):  # only as deep as whoever reads the content can follow
            pass
        return content
    except pickle.UnpicklingError as error:  # torch's message advises to run the code
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise InputError(
                f"{path}: needs code to unpickle ({named[1]}), refused; {PLAIN}: save it again with these alone,"
                " such as the state_dict of a model"
            ) from None
        raise InputError(f"{path}: not a readable file of torch.save; {PLAIN}") from None
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{path}: not a readable file of torch.save ({reason(error)}); {PLAIN}") from None


def save(content: Any, path: Path) -> Path:
    """Write `content` with `torch.save`, atomically, and return the path."""
    import torch

    with atomic.writing(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)
    return path


def values(tensor: Any) -> Any:
    """Return a tensor as one of its values alone: without gradient, negated and conjugated where its bits say so."""
    return tensor.detach().resolve_conj().resolve_neg()


def array(value: Any) -> np.ndarray | None:
    """Return the real numbers of a dense tensor: floats as float64, others as they are. None for anything else."""
    import torch

    if not isinstance(value, torch.Tensor) or not torch_archive.is_dense(value):
        return None
    if value.is_meta or value.is_complex():
        return None
    try:
        found: np.ndarray = values(value.double() if value.is_floating_point() else value).numpy()
    except (RuntimeError, TypeError, NotImplementedError):  # such as two numbers of 4 bits in each byte
        return None
    return found


def describe(value: Any) -> str:
    """Describe a value for an error message: "a tensor (3, 4) of int64", "a list of 7", "a str"."""
    if hasattr(value, "is_nested") and not torch_archive.is_dense(value):
        return f"a tensor that is {_kind(value)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        on_meta = ", without values" if getattr(value, "is_meta", False) else ""
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}{on_meta}"
    if isinstance(value, dict):
        names = sorted(" ".join(str(name).split())[:MAX_LETTERS_OF_A_KEY] for name in value)
        more = f" and {len(names) - MAX_KEYS_IN_MESSAGE} more" if len(names) > MAX_KEYS_IN_MESSAGE else ""
        return f"a dict with {names[:MAX_KEYS_IN_MESSAGE]}{more}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return "missing" if value is None else f"a {type(value).__name__}"


def _kind(tensor: Any) -> str:
    """Return what makes a tensor other than dense."""
    if tensor.is_nested:
        return "nested"
    return "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
