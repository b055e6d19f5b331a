"""Run a network on images or texts in batches of a fixed size; the last batch is padded with zeros.

Arithmetic is float32, or bfloat16 on request. The bits of an embedding must not depend on which inputs share its batch.
On a CPU they could: a library may sum in an order that depends on the batch size and on the position in the batch. The
batch size is therefore a function of the input size alone, and whether the position matters is tried when the network
is loaded, on a batch of equal inputs. Where results differ in a bit, or the network refuses the batch (one traced with
a single image may), the size is halved until they agree, down to one input at a time. CPU batches are small: beyond
some 100,000 pixels a core gains nothing from more.

A GPU takes batches of `batch_size` inputs from pinned memory; there the position of an input may change the last bits.
On a CPU, float32 features changed by less than 5e-6 of their length in batches of another size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.runtime import devices

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
BatchOption = Annotated[
    int, Field(ge=1, le=1024, description="images a forward pass on a GPU; on a CPU their size decides")
]
PrecisionOption = Annotated[
    Precision,
    Field(
        description="of the network's matrix products; bfloat16 keeps 3 digits, is fast on GPUs and slow on CPUs"
    ),
]
DeviceOption = Annotated[str, Field(description="auto, cpu or cuda")]
MAX_CPU_PIXELS, MAX_CPU_BATCH = 1 << 17, 16
"""Pixels and images in a CPU batch at most (an image with more pixels is a batch of its own)."""
PIXELS_PER_TOKEN = 256
"""A text token costs about as much as a patch of 16 x 16 pixels."""


class NetworkEncoder:
    """An encoder that computes features with a network, from images or from texts."""

    def __init__(
        self,
        network: torch.nn.Module,
        prepare: Callable[[Any], np.ndarray],
        *,
        dim: int,
        batch_size: int,
        device: str,
        precision: Precision = "float32",
        reads: Literal["images", "text"] = "images",
        identity: Mapping[str, Any],
    ) -> None:
        """Move the network to the device and choose the batch size.

        network   maps (n, 3, height, width) float32 images, or (n, length) int64 token ids, to (n, dim)
        prepare   maps an image to (height, width, 3) float32, or a text to (length,) int64 of one length
        device    as `devices.choose` takes it; on "cpu" `batch_size` is not used
        identity  family, options and checksums that determine the features; `dim` and a precision other than
                  float32 are added
        """
        import torch

        self._device = devices.choose(device)
        self._network = network.eval().to(memory_format=torch.channels_last).to(self._device)
        self._precision = precision
        self.prepare = prepare
        self.dim = dim
        self.reads = reads
        self.identity = (
            dict(identity) | {"dim": dim} | ({} if precision == "float32" else {"precision": precision})
        )
        self._batch_size = self._cpu_batch_size() if self._device == "cpu" else batch_size

    def _cpu_batch_size(self) -> int:
        """Return the largest power of two within the bounds at which the position in the batch changes no bit."""
        noise = hashing.generator("batch").integers(0, 256, (64, 64, 3), dtype=np.uint8)
        probe = self.prepare("a text like any other" if self.reads == "text" else noise)
        pixels = (
            probe.shape[-1] * PIXELS_PER_TOKEN if self.reads == "text" else probe.shape[0] * probe.shape[1]
        )
        largest = max(1, min(MAX_CPU_BATCH, MAX_CPU_PIXELS // pixels))
        size: int = 1 << (largest.bit_length() - 1)
        while size > 1:
            try:
                features = self._forward(np.stack([probe] * size)).view(np.uint32)
            except (InputError, RuntimeError):
                features = None  # the network may still take one image at a time, for which `dim` is known
            if features is not None and (features == features[0]).all():
                return size
            size //= 2
        return 1

    @property
    def batch_size(self) -> int:
        """Return the number of inputs of a forward pass."""
        return self._batch_size

    @property
    def device(self) -> str:
        """Return the device that computes, as torch names it."""
        return self._device

    def encode(self, inputs: Iterable[Any]) -> np.ndarray:
        """Encode (height, width, 3) uint8 images of any sizes, or texts, as (inputs, dim) float32.

        Inputs are consumed lazily: at most one batch is held in memory.
        """
        return self.encode_prepared(map(self.prepare, inputs))

    def encode_prepared(self, prepared: Iterable[np.ndarray]) -> np.ndarray:
        """Encode inputs that went through `prepare` already, perhaps in other threads."""
        iterator: Iterator[np.ndarray] = iter(prepared)
        features: list[np.ndarray] = []
        while batch := list(islice(iterator, self._batch_size)):
            padding = [np.zeros_like(batch[0])] * (self._batch_size - len(batch))
            features.append(self._forward(np.stack(batch + padding))[: len(batch)])
        return np.concatenate(features) if features else np.empty((0, self.dim), dtype=np.float32)

    def _forward(self, batch: np.ndarray) -> np.ndarray:
        import torch

        tensor = torch.from_numpy(batch)
        if self._device.startswith("cuda"):
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        if self.reads == "images":
            tensor = tensor.permute(0, 3, 1, 2)  # a view: in memory the channels stay last
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        kind = torch.device(self._device).type
        autocast = torch.autocast(kind, torch.bfloat16, enabled=self._precision == "bfloat16")
        with torch.inference_mode(), cudnn, autocast:
            features: np.ndarray = self._network(tensor.to(self._device)).float().cpu().numpy()
        if features.shape != (len(batch), self.dim):
            raise InputError(
                f"encoder {self.identity.get('family')!r}: the network gave features of shape {features.shape} for"
                f" {len(batch)} {'images' if self.reads == 'images' else 'texts'}, expected {(len(batch), self.dim)}"
            )
        return features


def adapt(network: Any, forward: Callable[[Any, torch.Tensor], Any]) -> torch.nn.Module:
    """Return a module with the parameters of a network that computes `forward(network, inputs)`."""
    import torch

    class Adapted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, inputs: torch.Tensor) -> Any:
            return forward(self.network, inputs)

    return Adapted().eval()


def image_feature_dim(network: torch.nn.Module, size: int, *, trained_size: int | None = None) -> int:
    """Return the number of features of a size x size image; an InputError names the option `size`."""
    hint = f"; it was trained with {trained_size}" if trained_size else ""
    zeros = np.zeros((1, 3, size, size), np.float32)
    return feature_dim(network, zeros, error=f"size: the network refuses {size}", hint=hint)


def feature_dim(network: torch.nn.Module, inputs: np.ndarray, *, error: str, hint: str = "") -> int:
    """Return the number of features of one input (1, ...), from a forward pass on the CPU.

    Raises InputError if the network refuses the input, with the reason between `error` and `hint`, and if its output
    is not (1, features).
    """
    import torch

    try:
        with torch.inference_mode():
            features = network.eval()(torch.from_numpy(inputs))
    except (AssertionError, IndexError, RuntimeError, ValueError) as refusal:
        reason = (str(refusal).strip().splitlines() or [type(refusal).__name__])[-1]
        raise InputError(f"{error} ({reason}){hint}") from None
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 1:
        output = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise InputError(f"weights: the network gives {output} for one input, expected (1, features)")
    return int(features.shape[1])
