"""The words of an image in place of its pixels: a caption or a prompt, read by the text tower of a model.

The words are the caption of a pool row and of an exemplar, and the prompt of a synthesized image without
the modifier token, so that a customized image and its control are told the same. Beside images, as a
part of a `fusion`, they say what was asked for; alone they find what the prompt names and nothing else.

One of three towers, by what the options name:

- `base_model`: the text encoder of a base model in diffusers layout, of SDXL its second; features are what the
  tower itself pools, the state at the end of the text, projected where the tower has a projection
- `weights` alone: the text tower of CLIP or SigLIP in a folder of transformers with its tokenizer, projected
  into the space that images share
- `architecture` and `weights`: the text tower of a model of open_clip, `encode_text`, not scaled to unit length

Words go through the model's own tokenizer, padded to the length that it reads; what is longer is cut off.
"""

from attrib_core.features.encoders.text.encoder import PACKAGES, checked, dim, files, load, others

__all__ = ["PACKAGES", "checked", "dim", "files", "load", "others"]
