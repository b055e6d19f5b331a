"""Textual inversion: only the token is trained, no weight of the network.

The method of Gal et al., "An Image is Worth One Word" (ICLR 2023). The delta file has no tensors; everything learned
is in the token file. The paper trains one vector; the default here is four, because with one vector a third fewer
exemplars are found in the demo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import method
from attrib_core.diffusion.customization.method import LayerCustomizer

__all__ = ["TextualInversion", "checked", "load"]


@dataclass(frozen=True, kw_only=True)
class TextualInversion(LayerCustomizer):
    """Textual inversion with its settings; without prior preservation, since the network does not change."""

    learning_rate: Annotated[float, Field(gt=0, description="of AdamW, constant")] = 0.03
    tokens: Annotated[int, Field(ge=1, description="embedding vectors of the modifier token")] = 4
    prior_batch: Annotated[int, Field(ge=0, description="none: the network does not change")] = 0

    endings = ()


def checked(**options: Any) -> dict[str, Any]:
    """Check the options and return them; InputError also for prior images, from which this method learns nothing."""
    if options["prior_batch"]:
        raise InputError(
            f"prior_batch: {options['prior_batch']}; expected 0: prompts of prior images have no modifier token,"
            " and only the token is trained"
        )
    return method.checked(**options)


load = TextualInversion
"""The options of the family are the fields of the class."""
