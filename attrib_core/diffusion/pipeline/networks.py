"""The networks of a base model: compared with its files before anything is loaded, and loaded whole or not at all.

Stock loading gives tensors that a file lacks random numbers, or leaves them without any, and says so in a log.
Both are errors here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from diffusers import DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import utils as hub_bars
from transformers.utils import logging as transformers_logging

from attrib_core.common.errors import InputError, reason, shown
from attrib_core.diffusion.pipeline import config_values, description, weight_files
from attrib_core.storage.safetensors_files import Shape

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
COMPARED = ("UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel", "CLIPTextModelWithProjection")
"""Networks whose tensors are compared with the headers; others only show when they are loaded."""
OLDER_PREFIX = "text_model."
"""A part of the names of a text encoder's tensors, which transformers has had or not."""
IGNORED = ("position_ids",)
"""Ends of tensors that older versions stored and none needs."""
SHOWN = 3
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("spiece.model",))
"""Files of a tokenizer: all of one of these."""
LONGEST_PROMPT = 100_000
BETAS = {"beta_start", "beta_end", "trained_betas"}
"""Options of all schedulers that have a noise schedule as Stable Diffusion's."""
Value = TypeVar("Value")


def check(folder: Path) -> list[str]:
    """Compare the files of a base model with its networks, and build its schedulers and tokenizers.

    Only headers are read, and numbers up to the first that is not zero. Returns a note for each part with tensors that
    its network lacks and that are not read. Raises InputError for tensors that are missing, have another shape or are
    of integers or complex numbers, for weights that are zeros alone, and for what cannot be built.
    """
    notes = []
    for part, stem in description.weight_parts(folder).items():
        given = weight_files.shapes(folder / part, stem)
        library, name = class_of(folder, part)
        if name in COMPARED:
            network = _empty(folder / part, library, name)
            notes += _compare(folder / part, given, network)
            _check_types(folder / part, weight_files.types(folder / part, stem), network)
        weight_files.check_not_zero(folder / part, stem)
    check_small_parts(folder)
    return notes


def check_small_parts(folder: Path) -> None:
    """Build the scheduler and the tokenizers of a base model, and check the numbers in its configurations.

    Raises InputError where one is missing, cannot be built, or does not fit its text encoder.

    transformers makes an empty tokenizer of a folder without files, and one that pads prompts without end of a folder
    without a length.
    """
    config_values.check_networks(folder)
    scheduler(folder)
    for part in description.tokenizer_parts(folder):
        built = tokenizer(folder / part, class_of(folder, part)[1])
        longest = built.model_max_length
        if not isinstance(longest, int | float) or not 1 < longest <= LONGEST_PROMPT:
            raise InputError(
                f"{folder / part}/tokenizer_config.json: model_max_length is {longest!r}, expected the"
                " tokens that the text encoder reads, such as 77"
            )
        encoder = folder / part.replace("tokenizer", "text_encoder") / "config.json"
        config_values.check_tokens(folder / part, built, encoder)


def class_of(folder: Path, part: str) -> tuple[str, str]:
    """Read the library and the class of a part from the index; InputError where there is no such class."""
    entry = description.read_json(folder / "model_index.json").get(part)
    try:
        library, name = entry  # type: ignore[misc]
        getattr(LIBRARIES[library], name)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ImportError):
        raise InputError(
            f"{folder}/model_index.json: {part!r} is {entry!r}, expected a library ({' or '.join(LIBRARIES)}) and a"
            " class of it that is installed"
        ) from None
    return library, name


def _empty(folder: Path, library: str, name: str) -> Any:
    """Build a network from its configuration without numbers."""
    values = description.read_json(folder / "config.json")
    kind = getattr(LIBRARIES[library], name)
    try:
        with torch.device("meta"):
            if library == "diffusers":
                return kind.from_config(values)
            return kind(kind.config_class.from_dict(values))
    except Exception as error:  # whatever a network makes of a wrong configuration
        raise InputError(
            f"{folder}/config.json: {library} cannot build {name} of it: {reason(error)}"
        ) from None


def _compare(folder: Path, given: dict[str, Shape], network: Any) -> list[str]:
    """Compare the tensors of a part's files with those of its network; returns at most one note."""
    found = _by_key(given, network)
    needed = {
        key.removeprefix(OLDER_PREFIX): tuple(value.shape) for key, value in network.state_dict().items()
    }
    for key, shape in needed.items():
        if key not in found:
            count = len(needed.keys() - found.keys())
            raise InputError(
                f"{folder}: lacks {count} of the {len(needed)} tensors of {type(network).__name__}, the first"
                f" {key!r}; {_hint(found.keys() - needed.keys())}"
            )
        if found[key] != shape:
            raise InputError(
                f"{folder}: tensor {key!r} has shape {found[key]}, by its config.json it is {shape}; expected weights"
                " of this configuration"
            )
    further = sorted(key for key in found.keys() - needed.keys() if not key.endswith(IGNORED))
    return [f"{folder}: {len(further)} tensors are not read, {_first(further)}"] if further else []


def _by_key(given: Mapping[str, Value], network: Any) -> dict[str, Value]:
    """Return what files say of their tensors by the keys of a network of today."""
    found = dict(given)
    if hasattr(network, "_fix_state_dict_keys_on_load"):  # names of attention layers before 2023
        network._fix_state_dict_keys_on_load(found)
    return {key.removeprefix(OLDER_PREFIX): value for key, value in found.items()}


def _check_types(folder: Path, types: Mapping[str, str], network: Any) -> None:
    """Raise InputError for a tensor of a network that its files have in a type that stock loading rounds or cuts."""
    found = _by_key(types, network)
    for key, value in network.state_dict().items():
        kind = found.get(key.removeprefix(OLDER_PREFIX))
        if kind is not None and value.is_floating_point() and kind not in weight_files.FLOATS:
            raise InputError(
                f"{folder}: tensor {key!r} is of type {kind}, expected floating-point numbers"
                f" ({', '.join(weight_files.EXPONENTS)}); convert the weights again"
            )


def _hint(further: set[str]) -> str:
    """Say what may be the reason of missing tensors."""
    if not further:
        return "fetch the weights again"
    return (
        f"it has {_first(sorted(further))} instead: weights of another network, or converted with other names"
    )


def _first(keys: list[str]) -> str:
    return ", ".join(repr(key) for key in keys[:SHOWN]) + (" and others" if len(keys) > SHOWN else "")


def scheduler(folder: Path, config: Any = None) -> DDIMScheduler:
    """Build DDIM with the noise schedule of a folder, or with a `config` of it; InputError where it has none."""
    where = f"{folder}/scheduler/scheduler_config.json"
    given = (
        description.read_json(folder / "scheduler" / "scheduler_config.json") if config is None else config
    )
    _check_class(where, "_class_name", given.get("_class_name"))
    if config is None:
        _check_class(f"{folder}/model_index.json", "scheduler", class_of(folder, "scheduler")[1])
    config_values.check_schedule(where, given)
    try:
        # by default DDIM clips to [-1, 1], which latents exceed; not every scheduler's config turns that off
        built = DDIMScheduler.from_config(given, clip_sample=False)
        finite = bool(torch.isfinite(built.alphas_cumprod).all())
        right = bool(((built.betas > 0) & (built.betas <= 1)).all())
    except Exception as error:  # whatever a scheduler makes of a wrong configuration
        raise InputError(f"{where}: no noise schedule can be built of it: {reason(error)}") from None
    if not finite:
        raise InputError(
            f"{where}: its noise schedule has NaN or infinite numbers; expected betas between 0 and 1"
        )
    if not right:
        raise InputError(
            f"{where}: its betas are from {built.betas.min():g} to {built.betas.max():g}, expected numbers between 0"
            " and 1"
        )
    return built


def _check_class(where: str, key: str, name: Any) -> None:
    """Raise InputError where a name is none of a scheduler of diffusers that has a noise schedule by betas."""
    if name is None:
        return
    kind = getattr(diffusers, str(name), None)
    if kind is None:
        raise InputError(
            f"{where}: {key} is {shown(name)}, which diffusers does not have; expected a scheduler of it"
        )
    if hasattr(kind, "_backends"):  # in the place of one that needs a package that is not installed
        return
    options = set(inspect.signature(kind.__init__).parameters)
    if not options >= BETAS or "snr_shift_scale" in options:
        raise InputError(
            f"{where}: {key} is {shown(name)}, expected a scheduler with a noise schedule by betas, as in"
            " Stable Diffusion, such as 'DDIMScheduler'; models of flow matching and the like are not supported"
        )


def tokenizer(folder: Path, name: str = "CLIPTokenizer") -> Any:
    """Load a tokenizer of a folder; InputError where it cannot be read, or knows no words."""
    if not any(all((folder / one).is_file() for one in files) for files in TOKENIZERS):
        raise InputError(
            f"{folder}: no tokenizer.json, or vocab.json and merges.txt; the base model lacks its {folder.name}"
        )
    try:
        with quiet():
            return getattr(transformers, name).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a tokenizer makes of damaged files
        raise InputError(f"{folder}: transformers cannot read the tokenizer: {reason(error)}") from None


def load(folder: Path, part: str) -> Any:
    """Load a network of a base model in float32 by stock calls.

    Raises InputError where its files lack a tensor or have another shape, which stock loading initializes at random,
    have integers in place of floating-point numbers, or zeros alone.
    """
    library, name = class_of(folder, part)
    try:
        with quiet():
            network, info = getattr(LIBRARIES[library], name).from_pretrained(
                folder / part, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                output_loading_info=True,
            )  # fmt: skip
    except MemoryError:
        raise
    except Exception as error:  # of either library, of safetensors, of torch
        raise InputError(f"{folder / part}: {library} cannot load it as {name}: {reason(error)}") from error
    missing = sorted(map(str, info["missing_keys"]))
    other = [*map(str, info["mismatched_keys"]), *map(str, info["error_msgs"])]
    if missing or other:
        what = f"lacks {len(missing)} tensors" if missing else "has tensors of other shapes"
        raise InputError(
            f"{folder / part}: {what} of {name}, {_first(missing or other)}; expected weights of this configuration"
        )
    _check_types(
        folder / part, weight_files.types(folder / part, description.weight_parts(folder)[part]), network
    )
    check_whole(folder / part, network)
    if not any(bool(value.any()) for value in network.parameters() if value.ndim > 1):
        raise InputError(weight_files.ZEROS.format(folder / part))
    return network


def check_whole(where: Path, network: torch.nn.Module) -> None:
    """Raise InputError where a tensor of a network has no numbers, or some that are NaN or infinite."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    for key, value in tensors:
        if value.is_meta:
            raise InputError(
                f"{where}: its tensor {key!r} was not loaded; expected it in the files of the weights"
            )
        # a sum is finite only if all numbers are, and reads them once; large ones may overflow it
        if value.is_floating_point() and not bool(torch.isfinite(value.detach().sum())):
            broken = int((~torch.isfinite(value)).sum())
            if broken:
                raise InputError(f"{where}: tensor {key!r} has {broken} numbers that are NaN or infinite")


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off the progress bars and warnings of both libraries for a while: the log of a job has what is raised."""
    libraries = diffusers_logging, transformers_logging
    before = [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in libraries]
    hub = not hub_bars.are_progress_bars_disabled()  # transformers turns these off with its own
    try:
        for one in libraries:
            one.disable_progress_bar()
            one.set_verbosity_error()
        yield
    finally:
        for one, (verbosity, bars) in zip(libraries, before, strict=True):
            one.set_verbosity(verbosity)
            if bars:
                one.enable_progress_bar()
        if hub:
            hub_bars.enable_progress_bars()
        elif before[1][1]:  # enabled by transformers just now
            hub_bars.disable_progress_bars()
