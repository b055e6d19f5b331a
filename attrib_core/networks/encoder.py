"""A network run on pictures: one at a time on a CPU, in batches on a GPU.

Arithmetic is float32, or bfloat16 by choice. The CPU takes one picture at a time: sums inside a
batch run in an order that depends on a picture's place in it, and the bits of an embedding must not
depend on its company. What that costs hangs on the size: tf_efficientnet_lite0 took 187 pictures of 64
pixels a second of processor time so, and 531 in batches of 8; of 224 pixels 55, and 49 in such batches.
A GPU takes whole batches of `batch` pictures from pinned memory, the last filled up with zeros; there a
picture's place may change last bits. In such batches on a CPU, float32 features changed by less than 5e-6
of their length; a GPU was not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from attrib_core.errors import InputError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
BatchOption = Annotated[
    int, Field(ge=1, le=1024, description="pictures a forward pass on a GPU; the CPU takes one at a time")
]
PrecisionOption = Annotated[
    Precision,
    Field(description="of the network's products; bfloat16 keeps 3 digits, is fast on GPUs and slow on CPUs"),
]
DeviceOption = Annotated[str, Field(description="auto, cpu or cuda")]


class NetworkEncoder:
    """A network that gives `dim` features a picture."""

    def __init__(
        self,
        network: torch.nn.Module,
        prepare: Callable[[np.ndarray], np.ndarray],
        *,
        dim: int,
        batch: int,
        device: str,
        precision: Precision = "float32",
    ) -> None:
        """`network` takes (n, 3, height, width) float32 to (n, dim).

        `prepare` takes a picture to the (height, width, 3) float32 that the network sees.
        """
        import torch

        self._network = network.eval().to(memory_format=torch.channels_last).to(device)
        self._device, self._precision = device, precision
        self._batch = 1 if device == "cpu" else batch
        self.prepare = prepare
        self.dim = dim
        self.identity: dict[str, Any] = {}

    @property
    def batch(self) -> int:
        """Pictures of a forward pass."""
        return self._batch

    @property
    def device(self) -> str:
        """Where the network computes, as torch names it."""
        return self._device

    def encode(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """(height, width, 3) uint8 pictures of any sizes to (pictures, dim) float32.

        Taken lazily: at most a batch of pictures is held at once.
        """
        return self.encode_prepared(map(self.prepare, pictures))

    def encode_prepared(self, prepared: Iterable[np.ndarray]) -> np.ndarray:
        """The same for pictures that went through `prepare` before, in other threads perhaps."""
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
        pictures = tensor.permute(0, 3, 1, 2)  # in memory the channels stay last
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        kind = torch.device(self._device).type
        reduced = torch.autocast(kind, torch.bfloat16, enabled=self._precision == "bfloat16")
        with torch.inference_mode(), cudnn, reduced:
            features: np.ndarray = self._network(pictures.to(self._device)).float().cpu().numpy()
        return features


def dimension(network: torch.nn.Module, size: int, *, made_for: int | None = None) -> int:
    """How many features a picture of size x size gets; on the CPU.

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
        raise InputError(f"weights: the network gives {found} for one picture, expected (1, features)")
    return int(features.shape[1])
