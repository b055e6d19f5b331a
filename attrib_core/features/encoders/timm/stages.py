"""Moments of intermediate stages of a timm network: means over a grid, and deviations as in style transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrib_core.common.errors import InputError

if TYPE_CHECKING:
    import torch


def stage_moments(
    network: Any, architecture: str, size: int, *, stages: list[int], cells: int, deviation: bool
) -> torch.nn.Module:
    """Return a module that maps (n, 3, size, size) to (n, features) by a network in evaluation mode.

    Raises InputError if timm cannot return its stages, for a stage that it lacks, and for more cells than a stage has
    positions, which would only repeat them.
    """
    import torch
    from torch.nn import functional

    def activations(images: torch.Tensor, indices: list[int] | None) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = network.forward_intermediates(
            images, indices=indices, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return outputs

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
            shapes = [tuple(values.shape) for values in activations(torch.zeros(1, 3, size, size), None)]
    except (AttributeError, AssertionError, RuntimeError, TypeError):
        raise InputError(
            f"stages: timm cannot return stages of {architecture!r}; leave stages null"
        ) from None
    for stage in stages:
        if stage >= len(shapes):
            raise InputError(f"stages: {architecture!r} has no stage {stage}, only 0 to {len(shapes) - 1}")
        if cells > min(shapes[stage][2:]):
            raise InputError(
                f"cells: {cells} is more than stage {stage} has at size {size}, {min(shapes[stage][2:])} on a side"
            )
    return Stages()
