"""Networks of the timm library as features: what comes before the classifier, or stages on the way.

With `stages`, features are the means of each stage over its areas, channel by channel, followed by its
deviations if asked. Both are scaled to unit length for the image, so that stages weigh alike
whatever the size of their activations. Shallow stages come first, and nothing is computed
behind the deepest. Shallow ones see lines, textures and colours, so they tell styles apart; deep ones
see objects.

Weights are a file that the user has, a model of the hub's cache, or a preset: weights that an
installed Python package carries, listed in `presets.toml`. Nothing is downloaded.
"""

from attrib_core.features.encoders.timm.encoder import PACKAGES, checked, dim, files, load

__all__ = ["PACKAGES", "checked", "dim", "files", "load"]
