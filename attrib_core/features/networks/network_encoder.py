"""A network run on images, or on words, in batches of a fixed size, the last filled up with zeros.

Arithmetic is float32, or bfloat16 by choice. The bits of an embedding must not depend on its company. On a
CPU they could: a library may sum in an order that hangs on the number of inputs, and on the place among them.
The number is fixed by the size of an input; whether the place matters is tried when the network is loaded, with a
batch of equal inputs. Where the results differ in a bit, or the network refuses so many (one that was traced with a
single image may), the batch is halved until they do not, down to one input at a time. Batches are small: beyond
some 100,000 pixels a core gains nothing by more.

A GPU takes batches of `batch` inputs from pinned memory; there an input's place may change last bits. In batches
of another size on a CPU, float32 features changed by less than 5e-6 of their length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from attrib_core.common import hashing
from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
Reads = Literal["images", "words"]
BatchOption = Annotated[
    int, Field(ge=1, le=1024, description="images a forward pass on a GPU; on a CPU their size decides")
]
PrecisionOption = Annotated[
    Precision,
    Field(description="of the network's products; bfloat16 keeps 3 digits, is fast on GPUs and slow on CPUs"),
]
DeviceOption = Annotated[str, Field(description="auto, cpu or cuda")]
CPU_PIXELS, CPU_MOST = 1 << 17, 16
"""Pixels of a batch on a CPU at most, where one image has not more, and images."""
TOKEN_PIXELS = 256
"""A token of a text costs about what a patch of 16 x 16 pixels does."""


class NetworkEncoder:
    """A network that gives `dim` features an image, or a text where it reads words."""

    def __init__(
        self,
        network: torch.nn.Module,
        prepare: Callable[[Any], np.ndarray],
        *,
        dim: int,
        batch: int,
        device: str,
        precision: Precision = "float32",
        reads: Reads = "images",
    ) -> None:
        """`network` takes (n, 3, height, width) float32 to (n, dim), or of words (n, ...) int64.

        `prepare` takes an image to the (height, width, 3) float32 that the network sees, or a text
        to its ids, of one shape for all texts, the tokens last.
        """
        import torch

        self._network = network.eval().to(memory_format=torch.channels_last).to(device)
        self._device, self._precision = device, precision
        self.prepare = prepare
        self.dim = dim
        self.reads = reads
        self.identity: dict[str, Any] = {}
        self._batch = self._cpu_batch() if device == "cpu" else batch

    def _cpu_batch(self) -> int:
        """Inputs of a forward pass on a CPU: a power of two, in which no place changes a bit."""
        noise = hashing.generator("batch").integers(0, 256, (64, 64, 3), dtype=np.uint8)
        one = self.prepare("a text like any other" if self.reads == "words" else noise)
        size = one.shape[-1] * TOKEN_PIXELS if self.reads == "words" else one.shape[0] * one.shape[1]
        most = max(1, min(CPU_MOST, CPU_PIXELS // size))
        batch: int = 1 << (most.bit_length() - 1)
        while batch > 1:
            try:
                found = self._run(np.stack([one] * batch)).view(np.uint32)
            except (InputError, RuntimeError):
                found = None  # of one image alone `dim` is known to be had
            if found is not None and (found == found[0]).all():
                return batch
            batch //= 2
        return 1

    @property
    def batch(self) -> int:
        """Inputs of a forward pass."""
        return self._batch

    @property
    def device(self) -> str:
        """Where the network computes, as torch names it."""
        return self._device

    def encode(self, inputs: Iterable[Any]) -> np.ndarray:
        """(height, width, 3) uint8 images of any sizes, or texts, to (inputs, dim) float32.

        Taken lazily: at most a batch of inputs is held at once.
        """
        return self.encode_prepared(map(self.prepare, inputs))

    def encode_prepared(self, prepared: Iterable[np.ndarray]) -> np.ndarray:
        """The same for inputs that went through `prepare` before, in other threads perhaps."""
        source: Iterator[np.ndarray] = iter(prepared)
        rows: list[np.ndarray] = []
        while chunk := list(islice(source, self._batch)):
            filled = np.stack(chunk + [np.zeros_like(chunk[0])] * (self._batch - len(chunk)))
            rows.append(self._run(filled)[: len(chunk)])
        return np.concatenate(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _run(self, prepared: np.ndarray) -> np.ndarray:
        import torch

        tensor = torch.from_numpy(prepared)
        if self._device.startswith("cuda"):
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        if self.reads == "images":
            tensor = tensor.permute(0, 3, 1, 2)  # in memory the channels stay last
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        kind = torch.device(self._device).type
        reduced = torch.autocast(kind, torch.bfloat16, enabled=self._precision == "bfloat16")
        with torch.inference_mode(), cudnn, reduced:
            features: np.ndarray = self._network(tensor.to(self._device)).float().cpu().numpy()
        if features.shape != (len(prepared), self.dim):
            raise InputError(
                f"encoder {self.identity.get('family')!r}: the network gave features of shape {features.shape} for"
                f" {len(prepared)} {self.reads}, expected {(len(prepared), self.dim)}"
            )
        return features


def dimension(network: torch.nn.Module, size: int, *, made_for: int | None = None) -> int:
    """How many features an image of size x size gets; on the CPU.

    Raises InputError where the network refuses the size, and where its output is no (1, features).
    """
    import torch

    hint = f"; it was made for {made_for}" if made_for else ""
    try:
        with torch.inference_mode():
            features = network.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"size: the network refuses {size} ({reason}){hint}") from None
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 1:
        found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise InputError(f"weights: the network gives {found} for one image, expected (1, features)")
    return int(features.shape[1])
