"""Networks of the timm library: pre-classifier features, or moments of intermediate stages.

With `stages`, features are the channel means of each stage over a grid of cells, followed by the standard deviations
if requested. Each of these blocks is scaled to unit length, so that stages weigh the same whatever the size of their
activations. Shallow stages come first, and nothing is computed after the deepest. Shallow stages respond to lines,
textures and colours and so tell styles apart; deep ones respond to objects.

Weights are a local file, a model in the hub's cache, or a preset: weights that an installed Python package contains,
listed in `presets.toml`. Nothing is downloaded.
"""

from attrib_core.features.encoders.timm.encoder import PACKAGES, checked, dim, files, load

__all__ = ["PACKAGES", "checked", "dim", "files", "load"]
