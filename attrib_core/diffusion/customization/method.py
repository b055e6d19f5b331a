"""Settings that every method of customization has; a method is a subclass, with defaults of its own.

No torch is imported here, so that options can be checked as soon as the config is read. The
annotations are no strings, since subclasses in other modules are asked for them.
"""

# no `from __future__ import annotations`: see above
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from attrib_core.common.errors import InputError

Shape = tuple[int, ...]
BRACKETS = re.compile(r"\[([^\[\]]*)\]")
"""What is left out of a training prompt where an exemplar has no subject."""
PLACEHOLDERS = "placeholders are {token}, {category} and {subject}"
TOKEN = "\0"  # stands for the token where a prompt is looked at; no prompt has it

if TYPE_CHECKING:
    from attrib_core.diffusion.customization.model_stack import ModelStack
    from attrib_core.diffusion.pipeline.components import Components


@dataclass(frozen=True, kw_only=True)
class Customizer:
    """A method of customization with its settings; a subclass says what is trained, in `start`.

    The defaults are for the bundled base model.
    """

    steps: Annotated[int, Field(ge=1, description="optimizer steps of object sets")] = 160
    style_steps: Annotated[int, Field(ge=1, description="optimizer steps of style sets")] = 300
    learning_rate: Annotated[float, Field(gt=0, description="of AdamW, constant")] = 0.004
    scale_learning_rate: Annotated[
        bool, Field(description="multiply it as the published trainers do, see `scaled_learning_rate`")
    ] = False
    weight_decay: Annotated[float, Field(ge=0, description="of AdamW, on what is trained alone")] = 0.0
    gradient_clip: Annotated[float, Field(gt=0, description="largest gradient norm of one exemplar set")] = (
        1.0
    )
    exemplar_batch: Annotated[int, Field(ge=1, description="exemplar images a step and set")] = 3
    prior_batch: Annotated[int, Field(ge=0, description="prior images a step and set")] = 1
    prior_weight: Annotated[float, Field(ge=0, description="weight of their loss")] = 1.0
    accumulation: Annotated[
        int, Field(ge=1, description="batches whose gradients are averaged before an optimizer step")
    ] = 1
    stack: Annotated[int, Field(ge=1, description="exemplar sets trained in one batch")] = 8
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="of the network's arithmetic; what is trained, and the loss, stay float32"),
    ] = "float32"
    checkpointing: Annotated[
        bool, Field(description="keep fewer activations and compute them again: less memory, same result")
    ] = False
    timestep_power: Annotated[
        float, Field(gt=0, le=1, description="timesteps are T u^power for uniform u: below 1, noisier ones")
    ] = 0.6
    min_snr: Annotated[
        float | None,
        Field(gt=0, description="losses weighted by signal-to-noise ratio, cut here (Hang et al., 2023: 5)"),
    ] = None
    views: Annotated[
        int, Field(ge=1, description="moved and scaled views made of an exemplar set, at least")
    ] = 16
    scale_jitter: Annotated[float, Field(ge=0, lt=1, description="largest change of scale of a view")] = 0.03
    shift: Annotated[float, Field(ge=0, lt=1, description="largest shift of a view, share of its side")] = (
        0.03
    )
    random_resize: Annotated[
        bool,
        Field(
            description="views as published, in place of scale_jitter and shift: smaller ones at a random place of a"
            " gray canvas, larger ones cut"
        ),
    ] = False
    size_prompts: Annotated[
        bool,
        Field(
            description="with random_resize: prompts of small and large views begin by saying so, as published"
        ),
    ] = False
    loss_mask: Annotated[
        bool,
        Field(description="with random_resize: the loss leaves the canvas around a view out, as published"),
    ] = False
    horizontal_flip: Annotated[
        bool, Field(description="mirror views by a chance of one half, as published")
    ] = False
    tokens: Annotated[int, Field(ge=1, description="vectors that the modifier token stands for")] = 1
    initializer: Annotated[
        str | None, Field(min_length=1, description="word that the token starts as; null: the class noun")
    ] = None
    object_prompt: Annotated[str, Field(description="training prompt of object sets")] = (
        "a {token} {category}"
    )
    style_prompt: Annotated[
        str,
        Field(
            description="training prompt of style sets; `{subject}` is what an exemplar shows, with its article;"
            " what is in brackets is left out where that is not known"
        ),
    ] = "a picture[ of {subject}] in the style of {token} art"

    def steps_of(self, kind: str) -> int:
        """Optimizer steps of a set of a kind."""
        return self.style_steps if kind == "style" else self.steps

    @property
    def rate(self) -> float:
        """The learning rate that AdamW is given."""
        if not self.scale_learning_rate:
            return self.learning_rate
        return scaled_learning_rate(
            self.learning_rate, self.exemplar_batch, self.accumulation, prior=self.prior_batch > 0
        )

    def start(self, components: "Components", nouns: Sequence[str], seed: int) -> "ModelStack":
        """A stack of models at step 0, one for each noun, which tokens start as.

        `seed` is the run's; a method that draws numbers takes them from it and from names, never
        from a place in the stack.
        """
        raise NotImplementedError

    def delta_shapes(self, unet: Mapping[str, Shape]) -> dict[str, Shape] | None:
        """Keys and shapes of a delta, from those of the UNet's weights: what a plan counts bytes by.

        None, unless a method says otherwise: not known before a model is trained.
        """
        return None


def chosen_shapes(unet: Mapping[str, Shape], endings: tuple[str, ...]) -> dict[str, Shape]:
    """Keys and shapes of the UNet's weights and biases in layers whose names end so."""
    return {key: shape for key, shape in unet.items() if key.rpartition(".")[0].endswith(endings)}


def checked(**options: Any) -> dict[str, Any]:
    """The options once more.

    Raises InputError for a switch that does nothing without another one, for a training prompt with an
    unknown placeholder, without the token, or with it where it may be left out, and for an empty initializer.
    """
    for name in ("object_prompt", "style_prompt"):
        try:
            shown = [
                BRACKETS.sub(kept, options[name]).format(token=TOKEN, category="", subject="")
                for kept in (r"\1", "")
            ]
        except (KeyError, IndexError, ValueError, AttributeError):
            raise InputError(f"{name}: {options[name]!r}; {PLACEHOLDERS}") from None
        if TOKEN not in shown[1]:
            raise InputError(
                f"{name}: {options[name]!r} has no {{token}} outside of brackets; nothing would be learned by it"
            )
    if options["initializer"] is not None and not options["initializer"].strip():
        raise InputError(f"initializer: {options['initializer']!r} is empty; expected a word, or null")
    for name in ("size_prompts", "loss_mask"):
        if options[name] and not options["random_resize"]:
            raise InputError(f"{name}: True, but random_resize is False, and nothing is resized")
    return options


def scaled_learning_rate(rate: float, exemplar_batch: int, accumulation: int = 1, *, prior: bool) -> float:
    """The learning rate that the published trainers use with `--scale_lr`.

    They multiply the given one by the images that one optimizer step sees (accumulated batches
    x batch size x processes), and once more by 2 where there are prior images. `exemplar_batch`
    is the number over all processes. The published run, 1e-5 with 2 images in each of 2
    processes and with a prior, so trains at 8e-5.
    """
    return rate * exemplar_batch * accumulation * (2 if prior else 1)
