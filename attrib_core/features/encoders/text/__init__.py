"""Text features: a caption or prompt, encoded by the text tower of a model.

The text of a pool row or exemplar is its caption; that of a synthesized image is its prompt without the modifier token,
so that a customized image and its control have the same text. As a part of a `fusion`, text adds what the image was
asked to show; alone, it retrieves what the prompt names and nothing else.

One of three towers, depending on the options:

- `base_model`: the text encoder of a base model in diffusers layout (the second one of SDXL); features are its own
  pooled output, the state at the end of the text, projected if the tower has a projection
- `weights` alone: the text tower of CLIP or SigLIP in a transformers folder with its tokenizer, projected into the
  space shared with images
- `architecture` and `weights`: the text tower of an open_clip model, `encode_text`, not normalised

Texts go through the model's own tokenizer, padded to its maximum length; longer ones are truncated.
"""

from attrib_core.features.encoders.text.encoder import PACKAGES, checked, dim, files, load, others

__all__ = ["PACKAGES", "checked", "dim", "files", "load", "others"]
