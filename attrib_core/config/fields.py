"""What sections of the config are made of: documented keys with types and bounds, and families."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Positive = Annotated[int, Field(ge=1)]


def key(default: Any, meaning: str, **bounds: Any) -> Any:
    """A documented key of the config."""
    return Field(default, description=meaning, **bounds)


class Section(BaseModel):
    """A section: unknown keys are errors, defaults are checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Family(BaseModel):
    """A section that names a family; its other keys are the options of that family."""

    model_config = ConfigDict(extra="allow", frozen=True)
    family: str = Field(description="name of a family: a file in the folder of its kind")


def family(name: str, **options: Any) -> Family:
    """A family's section, as the config would write it."""
    return Family.model_validate({"family": name} | options)
