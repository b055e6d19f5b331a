"""Building blocks of the schema: documented keys with types and bounds, and family sections."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
LONGEST_NAME = 100
"""Characters of the longest name; names of files are made of it, which may have 255."""
Name = Annotated[str, Field(pattern=NAME, max_length=LONGEST_NAME)]
Positive = Annotated[int, Field(ge=1)]


def key(default: Any, meaning: str, **bounds: Any) -> Any:
    """Declare a key of the config with its default, meaning and bounds."""
    return Field(default, description=meaning, **bounds)


class Section(BaseModel):
    """A section of the config; unknown keys are errors, and defaults are validated too."""

    # Infinity among a family's options would become None where a config is made plain, before they are checked.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class Family(BaseModel):
    """A section that chooses a family; its other keys are the options of that family."""

    model_config = ConfigDict(extra="allow", frozen=True)
    family: str = Field(description="name of a family: a file in the folder of its kind")


def family(name: str, **options: Any) -> Family:
    """Return the section of a family, as a config has it."""
    return Family.model_validate({"family": name} | options)
