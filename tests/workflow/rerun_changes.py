"""The changes behind the rerun table: another value for every key, and typical changes of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.workflow_fixtures import ROOT

ENCODERS = {
    "pixel": {"family": "pixel", "size": 8},
    "mixed": {
        "family": "fusion",
        "parts": {
            "palette": {"family": "palette"},
            "network": {
                "family": "timm",
                "architecture": "tf_efficientnet_lite0",
                "weights": "efficientnet-lite0",
            },
        },
    },
}
Changes = Mapping[str, Any]
"""Dotted keys of a config with their new values."""

NETWORK = "encoders.mixed.parts.network"
WEIGHTS = str(
    ROOT / "attrib_core/diffusion/base_models/bundled_weights/unet/diffusion_pytorch_model.safetensors"
)

CHANGES: dict[str, Changes] = {
    "run": {"run": "other"},
    "pool.images": {"pool.images": 150},
    "pool.source.size": {"pool.source.size": 96},
    "pool.source.family": {"pool.source": {"family": "blank"}},
    "parts.pool_images": {"parts.pool_images": 40},
    "parts.exemplar_sets": {"parts.exemplar_sets": 2},
    "exemplars.style_set_size": {"exemplars.style_set_size": [2, 4]},
    "exemplars.splits.train": {"exemplars.splits.train": 0.5, "exemplars.splits.test": 0.2},
    "exemplars.splits.validation": {"exemplars.splits.validation": 0.4, "exemplars.splits.test": 0.2},
    "exemplars.splits.test": {"exemplars.splits.test": 0.35, "exemplars.splits.validation": 0.25},
    "exemplars.unseen_categories": {"exemplars.unseen_categories": ["bird", "fruit"]},
    "prompts.object.scene": {"prompts.object.scene": "object_media"},
    "prompts.object.media": {"prompts.object.media": "object_scene"},
    "prompts.style.theme": {"prompts.style.theme": "style_object"},
    "prompts.style.object": {"prompts.style.object": "style_theme"},
    "base_model.family": {"base_model": {"family": "other"}},
    "customizer.family": {"customizer": {"family": "crossattn", "stack": 2}},
    "customizer.precision": {"customizer.precision": "bfloat16"},
    "customizer.size_prompts": {"customizer.random_resize": True, "customizer.size_prompts": True},
    "customizer.loss_mask": {"customizer.random_resize": True, "customizer.loss_mask": True},
    "customizer.min_snr": {"customizer.min_snr": 5.0},
    "customizer.initializer": {"customizer.initializer": "toy"},
    "customizer.object_prompt": {"customizer.object_prompt": "one {token} {category}"},
    "customizer.style_prompt": {"customizer.style_prompt": "in the style of {token} art"},
    "prior.family": {"prior": {"family": "captions"}},
    "prior.object_prompts": {"prior.object_prompts": "style_prior"},
    "prior.style_prompts": {"prior.style_prompts": "object_prior"},
    "customizer.stack": {"customizer.stack": 3},
    "synthesis.image_format": {"synthesis.image_format": "webp"},
    "synthesis.keep": {"synthesis.keep": "sample"},
    "synthesis.solver": {"synthesis.solver": "dpm++"},
    "synthesis.eta": {"synthesis.eta": 0.5},
    "encoders.pixel.family": {"encoders.pixel": {"family": "palette"}},
    "encoders.mixed.family": {"encoders.mixed": {"family": "palette"}},
    "encoders.mixed.parts.palette.family": {"encoders.mixed.parts.palette": {"family": "pixel"}},
    "encoders.mixed.parts.network.family": {"encoders.mixed.parts.network": {"family": "pixel"}},
    "encoders.mixed.parts.network.architecture": {f"{NETWORK}.architecture": "tf_efficientnet_lite1"},
    "encoders.mixed.parts.network.weights": {f"{NETWORK}.weights": WEIGHTS},
    "encoders.mixed.parts.network.stages": {f"{NETWORK}.stages": [1]},
    "encoders.mixed.parts.network.cells": {f"{NETWORK}.stages": [1], f"{NETWORK}.cells": 2},
    "encoders.mixed.parts.network.deviation": {f"{NETWORK}.stages": [1], f"{NETWORK}.deviation": True},
    "encoders.mixed.parts.network.resize": {f"{NETWORK}.resize": 144},
    "encoders.mixed.parts.network.fit": {f"{NETWORK}.fit": "squash"},
    "encoders.mixed.parts.network.interpolation": {f"{NETWORK}.interpolation": "bilinear"},
    "encoders.mixed.parts.network.prefix": {f"{NETWORK}.prefix": "model."},
    "encoders.mixed.parts.network.precision": {f"{NETWORK}.precision": "bfloat16"},
    "encoders.mixed.parts.network.mean": {f"{NETWORK}.mean": [0.4, 0.4, 0.4]},
    "encoders.mixed.parts.network.std": {f"{NETWORK}.std": [0.4, 0.4, 0.4]},
    "index.factory": {"index.factory": "IVF4,Flat"},
    "index.probes": {"index.probes": 2},
    "mapper.head": {"mapper.head": "mlp"},
    "mapper.hidden": {"mapper.head": "mlp", "mapper.hidden": 100},
    "mapper.trained_on": {"mapper.trained_on": ["object", "style", "both"]},
    "mapper.penalties": {"mapper.penalties": [0.1]},
    "mapper.starts": {"mapper.starts": ["identity"]},
    "mapper.shrinkages": {"mapper.shrinkages": [0.2]},
    "metrics.recall_ks": {"metrics.recall_ks": [1, 5, 10]},
    "metrics.ties": {"metrics.ties": "below"},
    "metrics.alike": {"metrics.alike": [["animal", "bird"]]},
    "calibration.shown": {"calibration.shown": 9},
    "calibration.forms": {"calibration.forms": ["published"]},
    "calibration.pool_shares": {"calibration.pool_shares": [0.5]},
}
"""Changes of keys for which the next number, or the negation, is not a valid change."""

WITHOUT_CHOICE: dict[str, str] = {}
"""Keys that allow a single value, with the reason."""

FAMILY_SECTIONS = (
    "pool.source",
    "prompts.object",
    "prompts.style",
    "base_model",
    "customizer",
    "prior",
    "encoders",
)
"""Sections whose keys are chosen by the user or are options of a family: one row covers most of them."""

EVENTS: dict[str, Changes] = {
    "an additional encoder": {"encoders.coarse": {"family": "pixel", "size": 4}},
    "an encoder removed": {"encoders": {"pixel": ENCODERS["pixel"]}},
    "more exemplar sets": {"exemplars.object_sets": 7, "exemplars.style_sets": 6},
    "a larger pool": {"pool.images": 180},
    "an additional mapper (`mapper.trained_on`)": {"mapper.trained_on": ["object", "both", "style"]},
    "an additional metric (`metrics.recall_ks`)": {"metrics.recall_ks": [1, 2, 5]},
}

BLANK = '''
"""Images of one colour, a source for tests."""
class Blank:
    def __len__(self): return 1000
    def state(self, start, stop): return ""
def load() -> Blank: return Blank()
'''
OTHER = '''
"""The bundled base model by another name, for tests."""
from attrib_core.diffusion.base_models.bundled import files, load
'''

FAMILIES = {("sources", "blank"): BLANK, ("base_models", "other"): OTHER}
