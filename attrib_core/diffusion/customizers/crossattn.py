"""Custom Diffusion of all cross-attention weights: its option `crossattn`, meant for hard subjects like faces.

Queries and outputs are trained besides keys, values and the token. The first text token is detached in keys and
values, the only projections of text.
"""

from __future__ import annotations

from dataclasses import dataclass

from attrib_core.diffusion.customization.method import LayerCustomizer, checked

__all__ = ["CrossAttention", "checked", "load"]
KEYS_AND_VALUES = ("attn2.to_k", "attn2.to_v")
QUERIES_AND_OUTPUTS = ("attn2.to_q", "attn2.to_out.0")


@dataclass(frozen=True, kw_only=True)
class CrossAttention(LayerCustomizer):
    """Custom Diffusion of keys, values, queries and outputs, with its settings."""

    endings = KEYS_AND_VALUES + QUERIES_AND_OUTPUTS
    detached = KEYS_AND_VALUES


load = CrossAttention
"""The options of the family are the fields of the class."""
