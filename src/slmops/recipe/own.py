"""Classes of the user's own that a recipe names, with what their constructors are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, JsonValue

from slmops.recipe.settings import Settings

ClassName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""`package.module:Class`."""

Arguments = Annotated[
    dict[str, JsonValue], Field(description="For the constructor; keys written beside `custom` end here.")
]


class CallbackSettings(Settings):
    """A class of your own that looks on while the student is trained: `{custom: package.module:Class, limit: 3}`.

    All keys but these go to the class's constructor. docs/guides/distil.md shows one.
    """

    custom: ClassName = Field(description="`package.module:Class` of a class with a method for an event.")
    arguments: Arguments = Field(default_factory=dict)


def arguments_apart(given: Any, of: type[BaseModel]) -> Any:
    """What a recipe says of a class as the model `of` has it: what is no key of the model is an argument."""
    if not isinstance(given, Mapping) or "custom" not in given:
        return given
    own = {key: value for key, value in given.items() if key in of.model_fields}
    beside = {key: value for key, value in given.items() if key not in own}
    if not beside:
        return own
    told = own.pop("arguments", {})
    return {**own, "arguments": {**told, **beside} if isinstance(told, Mapping) else told}
