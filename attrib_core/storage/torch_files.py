"""Read and write files of `torch.save` that hold plain data. No code in them is run."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, Literal

from attrib_core.common.errors import InputError
from attrib_core.storage import atomic

PLAIN = "only tensors, numbers, strings, lists, tuples and dictionaries are read"
MAX_KEYS_IN_MESSAGE = 8


def read(path: Path, *, tensors: Literal["memory", "mapped", "shapes"] = "memory") -> Any:
    """Return what `torch.save` wrote, on the CPU, if it is plain data.

    tensors  'memory': read into memory; 'mapped': memory maps of the file; 'shapes': on the device "meta",
             without values. The format from before 2020 is no zip file, cannot be mapped, and is always
             read into memory.

    Raises InputError for a file that is missing, broken, or needs code to unpickle.
    """
    import torch

    device, mmap = "cpu", False
    try:
        if zipfile.is_zipfile(path):
            device, mmap = "meta" if tensors == "shapes" else "cpu", tensors == "mapped"
        return torch.load(path, map_location=device, mmap=mmap, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected one that torch.save wrote") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, expected a file that torch.save wrote") from None
    except pickle.UnpicklingError as error:  # torch's message advises to run the code
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise InputError(
                f"{path}: needs code to unpickle ({named[1]}), refused; {PLAIN}: save it again with these alone"
            ) from None
        raise InputError(f"{path}: not a readable file of torch.save; {PLAIN}") from None
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, AttributeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a readable file of torch.save ({reason}); {PLAIN}") from None


def save(content: Any, path: Path) -> Path:
    """Write `content` with `torch.save`, atomically, and return the path."""
    import torch

    with atomic.writing(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)
    return path


def describe(value: Any) -> str:
    """Describe a value for an error message: "a tensor (3, 4) of int64", "a list of 7", "a str"."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, dict):
        names = sorted(map(str, value))
        more = f" and {len(names) - MAX_KEYS_IN_MESSAGE} more" if len(names) > MAX_KEYS_IN_MESSAGE else ""
        return f"a dict with {names[:MAX_KEYS_IN_MESSAGE]}{more}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return "missing" if value is None else f"a {type(value).__name__}"
