"""Custom Diffusion: keys and values of the cross-attention, and one new token.

The method of Kumari et al., "Multi-Concept Customization of Text-to-Image Diffusion" (CVPR 2023) trains `to_k` and
`to_v` of every cross-attention layer and the embedding of the modifier token with AdamW. The first text token is
detached from the gradient. For prior preservation, images of the class are trained on as well. Unlike in the
published code, weight decay never touches other rows of the token table, and all of several tokens are trained.

The defaults are for the bundled base model. `config/paper.yaml` has the published
settings for Stable Diffusion v1.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from attrib_core.diffusion.customization.method import LayerCustomizer, checked

__all__ = ["CustomDiffusion", "checked", "load"]
KEYS_AND_VALUES = ("attn2.to_k", "attn2.to_v")


@dataclass(frozen=True, kw_only=True)
class CustomDiffusion(LayerCustomizer):
    """Custom Diffusion of keys and values, with its settings."""

    endings = KEYS_AND_VALUES
    detached = KEYS_AND_VALUES


load = CustomDiffusion
"""The options of the family are the fields of the class."""
