"""Textual inversion: the token alone, and no weight of the network.

Method of Gal et al., "An Image is Worth One Word" (ICLR 2023). The delta's file holds no
tensor; all that was learned stands in the token's. The paper trains one vector; the default of four
is ours, since one finds a third fewer exemplars in the demo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from attrib_core.common.errors import InputError
from attrib_core.diffusion.customization import method
from attrib_core.diffusion.customization.method import Customizer, Shape

if TYPE_CHECKING:
    from attrib_core.diffusion.customization.model_stack import ModelStack
    from attrib_core.diffusion.pipeline.components import Components

__all__ = ["TextualInversion", "checked", "load"]


@dataclass(frozen=True, kw_only=True)
class TextualInversion(Customizer):
    """The method with its settings; there is no prior to preserve, since the network stays as it is."""

    learning_rate: Annotated[float, Field(gt=0, description="of AdamW, constant")] = 0.03
    tokens: Annotated[int, Field(ge=1, description="vectors that the modifier token stands for")] = 4
    prior_batch: Annotated[int, Field(ge=0, description="none: the network stays as it is")] = 0

    def start(self, components: Components, nouns: Sequence[str], seed: int) -> ModelStack:
        """A stack of models at step 0, one for each noun; tokens start as their nouns."""
        from attrib_core.diffusion.customization.model_stack import ModelStack

        return ModelStack(self, components, nouns, {})

    def delta_shapes(self, unet: Mapping[str, Shape]) -> dict[str, Shape]:
        """Keys and shapes of a delta, from those of the UNet's weights."""
        return {}


def checked(**options: Any) -> dict[str, Any]:
    """The options once more; raises InputError for prior images too, from which this method learns nothing."""
    if options["prior_batch"]:
        raise InputError(
            f"prior_batch: {options['prior_batch']}; expected 0: prompts of prior images have no modifier token,"
            " and nothing but the token is trained"
        )
    return method.checked(**options)


load = TextualInversion
"""The options of the family are the fields of the class."""
