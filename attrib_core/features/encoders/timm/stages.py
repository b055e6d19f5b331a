"""Stages of a network of timm as features: means over areas, and deviations as in style transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    import torch


def tapped(
    network: Any, architecture: str, size: int, *, stages: list[int], cells: int, deviation: bool
) -> torch.nn.Module:
    """The network, in its mode for evaluation, as a module: (n, 3, size, size) to (n, features).

    Raises InputError where timm cannot tap it, for a stage that it lacks, and for more cells than
    a stage has places, which would only repeat them.
    """
    import torch
    from torch.nn import functional

    def activations(images: torch.Tensor, indices: list[int] | None) -> list[torch.Tensor]:
        tapped: list[torch.Tensor] = network.forward_intermediates(
            images, indices=indices, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return tapped

    class Stages(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            blocks = []
            for values in activations(images, stages):
                blocks.append(functional.adaptive_avg_pool2d(values, cells).flatten(1))
                if deviation:
                    blocks.append(values.std(dim=(2, 3), correction=0))
            return torch.cat([functional.normalize(block) for block in blocks], dim=1)

    try:
        with torch.inference_mode():
            every = [tuple(values.shape) for values in activations(torch.zeros(1, 3, size, size), None)]
    except (AttributeError, AssertionError, RuntimeError, TypeError):
        raise InputError(f"stages: timm cannot tap {architecture!r}; leave stages null") from None
    for stage in stages:
        if stage >= len(every):
            raise InputError(f"stages: {architecture!r} has no stage {stage}, only 0 to {len(every) - 1}")
        if cells > min(every[stage][2:]):
            raise InputError(
                f"cells: {cells} is more than stage {stage} has at size {size}, {min(every[stage][2:])} on a side"
            )
    return Stages()
