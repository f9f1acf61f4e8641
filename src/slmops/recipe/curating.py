"""Which of the teacher's answers are learned from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from slmops.recipe.data import Similarity
from slmops.recipe.settings import Settings


class Curate(Settings):
    """Which answers are learned from, of those that have the form of the task."""

    agreement: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Of several teachers that answer every row: the least share of their weight that must stand behind "
        "an answer. null takes the one with the most.",
    )
    lengths: Annotated[float, Field(gt=0)] | None = Field(
        3.0,
        description="Of free text: quartile distances that an answer's length, as a logarithm, may lie outside of the "
        "middle half; null does not look.",
    )
    language: Annotated[float, Field(ge=0.5, lt=1)] | None = Field(
        0.99,
        description="Of free text: certainty from which an answer in a language that no reference answer is written in "
        "is dropped; null does not look.",
    )
    language_letters: int = Field(40, ge=1, description="Letters below which a text is too short to tell its language.")
    near_duplicates: Similarity | None = Field(
        None,
        description="Of free text: similarity of two answers from which one of them is dropped; null keeps all, since "
        "many questions may have one answer.",
    )
    max_imbalance: Annotated[float, Field(ge=1)] | None = Field(
        20.0,
        description="Rows of the largest class for each of the smallest, in train and answers together, beyond which "
        "`rebalance` comes in; null does not look.",
    )
    rebalance: Literal["none", "downsample"] = Field(
        "none", description="none: only tell; downsample: drop answers of the classes that have too many."
    )

    @model_validator(mode="after")
    def _bound_of_rebalancing(self) -> Curate:
        if self.rebalance != "none" and self.max_imbalance is None:
            raise ValueError(f"`rebalance: {self.rebalance}` needs `max_imbalance`, the bound to rebalance to")
        return self
