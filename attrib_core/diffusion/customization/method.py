"""The base class of customization methods: the settings that all share; a method is a subclass with its own defaults.

No torch is imported here, so that options can be checked as soon as the config is read. Annotations are not strings,
because the options of subclasses in other modules are read from them.
"""

# no `from __future__ import annotations`: see above
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from attrib_core.common.errors import InputError

Shape = tuple[int, ...]
BRACKETS = re.compile(r"\[([^\[\]]*)\]")
"""Text in brackets, which is left out of a training prompt where an exemplar has no subject."""
PLACEHOLDERS = "placeholders are {token}, {category} and {subject}"
TOKEN = "\0"  # a placeholder for the token in checks of prompts, which never have it

if TYPE_CHECKING:
    from attrib_core.diffusion.customization.model_stack import ModelStack
    from attrib_core.diffusion.pipeline.components import Components


@dataclass(frozen=True, kw_only=True)
class Customizer:
    """A customization method with its settings; a subclass defines in `start` which weights are trained.

    The defaults are for the bundled base model.
    """

    steps: Annotated[int, Field(ge=1, description="optimizer steps of object sets")] = 160
    style_steps: Annotated[int, Field(ge=1, description="optimizer steps of style sets")] = 300
    learning_rate: Annotated[float, Field(gt=0, description="of AdamW, constant")] = 0.004
    scale_learning_rate: Annotated[
        bool, Field(description="multiply it as the published trainers do, see `scaled_learning_rate`")
    ] = False
    weight_decay: Annotated[float, Field(ge=0, description="of AdamW, only on trained weights")] = 0.0
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
        Field(description="of the network's arithmetic; trained weights and the loss stay float32"),
    ] = "float32"
    checkpointing: Annotated[
        bool, Field(description="gradient checkpointing: less memory, more time, same result")
    ] = False
    timestep_power: Annotated[
        float, Field(gt=0, le=1, description="timesteps are T u^power for uniform u: below 1, noisier ones")
    ] = 0.6
    min_snr: Annotated[
        float | None,
        Field(gt=0, description="losses weighted by signal-to-noise ratio, cut here (Hang et al., 2023: 5)"),
    ] = None
    views: Annotated[
        int, Field(ge=1, description="shifted and scaled views of an exemplar set, at least")
    ] = 16
    scale_jitter: Annotated[float, Field(ge=0, lt=1, description="largest change of scale of a view")] = 0.03
    shift: Annotated[float, Field(ge=0, lt=1, description="largest shift of a view, share of its side")] = (
        0.03
    )
    random_resize: Annotated[
        bool,
        Field(
            description="views as published, instead of scale_jitter and shift: smaller ones at a random position of a"
            " gray canvas, larger ones cropped"
        ),
    ] = False
    size_prompts: Annotated[
        bool,
        Field(description="with random_resize: prompts of small and large views mention it, as published"),
    ] = False
    loss_mask: Annotated[
        bool,
        Field(description="with random_resize: the loss excludes the canvas around a view, as published"),
    ] = False
    horizontal_flip: Annotated[
        bool, Field(description="mirror views with probability one half, as published")
    ] = False
    tokens: Annotated[int, Field(ge=1, description="embedding vectors of the modifier token")] = 1
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
            " text in brackets is left out where it is unknown"
        ),
    ] = "a picture[ of {subject}] in the style of {token} art"

    def steps_of(self, kind: str) -> int:
        """Return the number of optimizer steps of a set of a kind."""
        return self.style_steps if kind == "style" else self.steps

    @property
    def rate(self) -> float:
        """The learning rate of AdamW."""
        if not self.scale_learning_rate:
            return self.learning_rate
        return scaled_learning_rate(
            self.learning_rate, self.exemplar_batch, self.accumulation, prior=self.prior_batch > 0
        )

    def start(self, components: "Components", nouns: Sequence[str], seed: int) -> "ModelStack":
        """Return a stack of untrained models, one for each noun, which initializes its token.

        `seed` is the run's. Random numbers must depend on it and on names only, never on a position in the stack.
        """
        raise NotImplementedError

    def delta_shapes(self, unet: Mapping[str, Shape]) -> dict[str, Shape] | None:
        """Return the keys and shapes of a delta, from those of the UNet's weights, to plan its size.

        None, the default, means that they are unknown before a model is trained.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class LayerCustomizer(Customizer):
    """A method that trains linear layers of the UNet in full, chosen by the endings of their names."""

    endings: ClassVar[tuple[str, ...]]
    detached: ClassVar[tuple[str, ...]] = ()
    """Endings of the layers that pass no gradient through the first text token."""

    def start(self, components: "Components", nouns: Sequence[str], seed: int) -> "ModelStack":
        """Return a stack of untrained models, one for each noun, which initializes its token."""
        from attrib_core.diffusion.customization.model_stack import ModelStack, stacked_layers

        layers = stacked_layers(components, self.endings, len(nouns), detach_first_token=self.detached)
        return ModelStack(self, components, nouns, layers)

    def delta_shapes(self, unet: Mapping[str, Shape]) -> dict[str, Shape]:
        """Return the keys and shapes of a delta, from those of the UNet's weights."""
        return chosen_shapes(unet, self.endings)


def chosen_shapes(unet: Mapping[str, Shape], endings: tuple[str, ...]) -> dict[str, Shape]:
    """Select the UNet's weights and biases in layers whose names have one of the endings; shapes by key."""
    return {key: shape for key, shape in unet.items() if key.rpartition(".")[0].endswith(endings)}


def checked(**options: Any) -> dict[str, Any]:
    """Check the options and return them.

    Raises InputError for a switch that needs another one, for an empty initializer, and for a training prompt with an
    unknown placeholder or without the token outside of brackets.
    """
    for name in ("object_prompt", "style_prompt"):
        try:
            prompts = [
                BRACKETS.sub(kept, options[name]).format(token=TOKEN, category="", subject="")
                for kept in (r"\1", "")
            ]
        except (KeyError, IndexError, ValueError, AttributeError):
            raise InputError(f"{name}: {options[name]!r}; {PLACEHOLDERS}") from None
        if TOKEN not in prompts[1]:
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
    """Compute the learning rate of the published trainers with `--scale_lr`.

    They multiply the given one by the images in one optimizer step (accumulated batches x batch size x processes),
    and by 2 with prior images. `exemplar_batch` is the number over all processes. The published run, with 1e-5, 2
    images in each of 2 processes and prior images, thus trains at 8e-5.
    """
    return rate * exemplar_batch * accumulation * (2 if prior else 1)
