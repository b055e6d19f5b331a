"""A base model before it is loaded: its folder, and what its JSON files say.

Without torch, so that planning a run needs none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

from attrib_core.common import hashing
from attrib_core.common.errors import InputError, shown
from attrib_core.diffusion.pipeline import weight_files
from attrib_core.storage import text_files

HELD_OUT = "held_out.json"
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SUBFOLDERS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
XL = "StableDiffusionXLPipeline"
TEXT_ENCODERS = {"StableDiffusionPipeline": ("text_encoder",), XL: ("text_encoder", "text_encoder_2")}
"""The text encoders of the pipelines that can be customized, by the class that their index names."""
CLIP_WIDTH = 512
"""Width and projection of a CLIP text encoder whose config omits them: the default of transformers."""
MAX_BLOCKS = 16
"""Most blocks of an autoencoder: each doubles the side of an image, which no memory holds with more."""
TIME_IDS = 6
"""Numbers of SDXL's micro-conditioning: original size, crop coordinates and target size."""


@dataclass(frozen=True)
class BaseModel:
    """The description of a folder in diffusers layout.

    `fingerprint` is a digest of every byte of the folder, or the commit of a model of the hub. `resolution` is the
    side of an image in pixels. `held_out` has the lists `subjects` and `styles` of what the model never saw in
    training, and `source`, the source of images that they refer to (null: any); it is None without a `held_out.json`.
    """

    path: Path
    fingerprint: str
    resolution: int
    prediction_type: str
    held_out: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Return the content of `base_model.json`."""
        return asdict(self) | {"path": str(self.path)}


def files(folder: Path) -> list[Path]:
    """List the files of the model, all below the folder, sorted.

    Raises InputError where the folder is no pipeline in diffusers layout or lacks weights.
    """
    for part, stem in weight_parts(folder).items():
        weight_files.of_part(folder / part, stem)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def weight_parts(folder: Path) -> dict[str, str]:
    """Return the parts of a folder that have weights, with the beginning of their files' names."""
    return SUBFOLDERS | dict.fromkeys(TEXT_ENCODERS[pipeline_class(folder)], SUBFOLDERS["text_encoder"])


def tokenizer_parts(folder: Path) -> list[str]:
    """Return the folders of the tokenizers, in the order of the text encoders."""
    return [name.replace("text_encoder", "tokenizer") for name in TEXT_ENCODERS[pipeline_class(folder)]]


def pipeline_class(folder: Path) -> str:
    """Read the pipeline class of a folder, one of TEXT_ENCODERS; InputError where it is another, or none."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise InputError(f"{index}: no such file; expected a Stable Diffusion pipeline in diffusers layout")
    kind = read_json(index).get("_class_name", "")
    if not isinstance(kind, str) or kind not in TEXT_ENCODERS:
        raise InputError(f"{index}: _class_name is {shown(kind)}, expected one of {', '.join(TEXT_ENCODERS)}")
    return kind


def text_widths(folder: Path) -> list[int]:
    """Read the widths of a folder's text encoders, in their order."""
    configs = [folder / name / "config.json" for name in TEXT_ENCODERS[pipeline_class(folder)]]
    return [_count(read_json(path), "hidden_size", path, CLIP_WIDTH) for path in configs]


def describe(folder: Path, fingerprint: str | None = None) -> BaseModel:
    """Describe a folder from its JSON files and a digest of its bytes; no weights are loaded.

    With a `fingerprint` the digest is not computed. Raises InputError for a missing file, a file that is not JSON,
    a missing key, weights that are cut off or no safetensors, and components that do not fit each other.
    """
    folder = folder.resolve()
    files(folder)
    for part, stem in weight_parts(folder).items():
        weight_files.shapes(folder / part, stem)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES[:2]:
        raise InputError(
            f"{folder}/scheduler/scheduler_config.json: prediction_type is {shown(prediction)},"
            " expected 'epsilon' or 'v_prediction'"
        )
    if pipeline_class(folder) == XL:
        _check_xl(folder, read_json(folder / "unet" / "config.json"))
    return BaseModel(
        path=folder,
        fingerprint=hashing.folder_digest(folder) if fingerprint is None else fingerprint,
        resolution=resolution(folder),
        prediction_type=prediction,
        held_out=held_out(folder / HELD_OUT),
    )


def resolution(folder: Path) -> int:
    """Compute the side of an image in pixels: that of the latent, doubled for each downsampling of the autoencoder."""
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    blocks = vae.get("block_out_channels", [0])
    if not isinstance(blocks, list) or not 0 < len(blocks) <= MAX_BLOCKS:
        raise InputError(
            f"{folder}/vae/config.json: block_out_channels is {shown(blocks)}, expected a list of at most {MAX_BLOCKS}"
            " numbers"
        )
    return _side(unet, folder) * 2 ** (len(blocks) - 1)


def read(path: Path) -> BaseModel:
    """Read the description in a `base_model.json`."""
    values = read_json(path)
    try:
        return BaseModel(
            path=Path(values["path"]),
            fingerprint=values["fingerprint"],
            resolution=values["resolution"],
            prediction_type=values["prediction_type"],
            held_out=values["held_out"],
        )
    except KeyError as error:
        raise InputError(
            f"{path}: no description of a base model, lacks {error}; run the rule base_model"
        ) from None
    except TypeError:
        raise InputError(
            f"{path}: no description of a base model, path is {shown(values['path'])}; run the rule base_model"
        ) from None


def held_out(path: Path) -> dict[str, Any] | None:
    """Read what the base model never saw, from its `held_out.json`; None where there is no such file.

    Raises InputError where a key is missing or has another type.
    """
    if not path.exists():
        return None
    values = read_json(path)
    for name in ("subjects", "styles"):
        entries = values.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise InputError(f"{path}: key {name!r} is {shown(entries)}, expected a list of names")
    source = values.get("source")
    if source is not None and not isinstance(source, str):
        raise InputError(f"{path}: key 'source' is {shown(source)}, expected the name of a source or null")
    return {"subjects": values["subjects"], "styles": values["styles"], "source": source}


def _check_xl(folder: Path, unet: dict[str, Any]) -> None:
    """Raise InputError where the UNet's inputs are not SDXL's, or do not fit the text encoders."""
    where = f"{folder}/unet/config.json"
    if unet.get("addition_embed_type") != "text_time":
        raise InputError(
            f"{where}: addition_embed_type is {shown(unet.get('addition_embed_type'))}, expected 'text_time', as in"
            " SDXL"
        )
    widths = text_widths(folder)
    if unet.get("cross_attention_dim") != sum(widths):
        raise InputError(
            f"{where}: cross_attention_dim is {shown(unet.get('cross_attention_dim'))}, but the text encoders are"
            f" {' + '.join(map(str, widths))} wide"
        )
    second = folder / "text_encoder_2" / "config.json"
    pooled = _count(read_json(second), "projection_dim", second, CLIP_WIDTH)
    needed = pooled + TIME_IDS * _count(unet, "addition_time_embed_dim", where, 0)
    if unet.get("projection_class_embeddings_input_dim") != needed:
        raise InputError(
            f"{where}: projection_class_embeddings_input_dim is"
            f" {shown(unet.get('projection_class_embeddings_input_dim'))}, expected {needed}: the pooled text's"
            f" {pooled} and {TIME_IDS} times addition_time_embed_dim"
        )


def _side(unet: dict[str, Any], folder: Path) -> int:
    """Return the side of the latent; diffusers allows a number or a pair."""
    size = unet.get("sample_size")
    if isinstance(size, list) and size and all(one == size[0] for one in size):
        size = size[0]
    if not _is_count(size):
        raise InputError(
            f"{folder}/unet/config.json: sample_size is {shown(size)}, expected one number (square images)"
        )
    return size


def _count(values: dict[str, Any], key: str, path: Path | str, default: int) -> int:
    """Return a whole number above zero, or the default where there is none; InputError for another value."""
    if key not in values:
        return default
    value = values[key]
    if not _is_count(value):
        raise InputError(f"{path}: {key} is {shown(value)}, expected a whole number above 0")
    return value


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; InputError for a file that is missing or another one."""
    # diffusers reads no file with a byte order mark
    text = text_files.read(path, expected="part of a base model in diffusers layout", mark=False)
    try:
        values = text_files.parse_json(text)
    except InputError as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, expected a JSON object")
    return values
