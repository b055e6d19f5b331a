"""Textual inversion: the token alone, and no weight of the network.

Method of Gal et al., "An Image is Worth One Word" (ICLR 2023). The delta's file holds no
tensor; all that was learned stands in the token's. The paper trains one vector; the default of four
is ours, since one finds a third fewer exemplars in the demo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from attrib_core.diffusion.settings import Customizer, Shape, checked

if TYPE_CHECKING:
    from attrib_core.diffusion.components import Components
    from attrib_core.diffusion.stack import Stack

__all__ = ["TextualInversion", "checked", "load"]


@dataclass(frozen=True, kw_only=True)
class TextualInversion(Customizer):
    """The method with its settings; there is no prior to preserve, since the network stays as it is."""

    learning_rate: Annotated[float, Field(gt=0, description="of AdamW, constant")] = 0.03
    tokens: Annotated[int, Field(ge=1, description="vectors that the modifier token stands for")] = 4
    prior_batch: Annotated[int, Field(ge=0, description="prior pictures a step and set")] = 0

    def start(self, components: Components, nouns: Sequence[str], seed: int) -> Stack:
        """A stack of models at step 0, one for each noun; tokens start as their nouns."""
        from attrib_core.diffusion.stack import Stack

        return Stack(self, components, nouns, {})

    def delta_shapes(self, unet: Mapping[str, Shape]) -> dict[str, Shape]:
        """Keys and shapes of a delta, from those of the UNet's weights."""
        return {}


load = TextualInversion
"""The options of the family are the fields of the class."""
