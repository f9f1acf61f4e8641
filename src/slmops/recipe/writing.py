"""What a teacher writes besides answers: texts for the pool, solutions of labelled rows, the user's part of a talk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from slmops.recipe.settings import Settings
from slmops.recipe.teachers import EndpointTeacher, TransformersTeacher

AtLeast = Annotated[float, Field(ge=0, le=1)]


class Draws(Settings):
    """How a teacher's words are drawn where the same question may be asked twice."""

    temperature: float = Field(0.9, gt=0, le=2, description="Of the sampling.")
    top_p: float = Field(0.95, gt=0, le=1, description="Share of the probability that is drawn from.")


class Write(Draws):
    """New rows for the pool, written by the teacher from training rows, and answered as the pool is."""

    rows: int | None = Field(None, ge=1, description="Rows wanted; or give `per_label`.")
    by: Literal["new", "paraphrase", "harder", "easier"] = Field(
        "new",
        description="new: other texts of the same kind; the others vary one training row: said in other words, harder "
        "or easier to answer.",
    )
    per_label: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="Rows wanted of each label, by its name."
    )
    balance: bool = Field(
        False, description="Deal `rows` out so that training rows and written ones are as many of each label."
    )
    shots: int = Field(
        4, ge=1, le=64, description="Training rows shown with a request; where one is varied, it is the first of them."
    )
    texts: int = Field(5, ge=1, le=50, description="Texts that one request asks for.")
    rounds: int = Field(
        4, ge=1, description="How often is asked for what is still missing: it bounds what a teacher can cost."
    )
    at_least: AtLeast = Field(
        0.8, description="Share of the wanted rows, of each label that has a number, without which the run ends."
    )
    max_length: float = Field(
        2.0, ge=1, description="A text this many times as long as the longest training text is dropped."
    )
    max_tokens: int = Field(1024, ge=16, description="Tokens of one reply with its texts.")

    @model_validator(mode="after")
    def _one_number(self) -> Write:
        if (self.rows is None) == (not self.per_label):
            raise ValueError("give `rows`, or `per_label`, and not both")
        if self.balance and self.rows is None:
            raise ValueError("`balance` deals `rows` out; `per_label` says how many already")
        return self


class Reason(Draws):
    """Solutions of the labelled rows, step by step, of which those are learned that end in the known answer."""

    attempts: int = Field(4, ge=1, description="Solutions of a row at most; the first right one is taken.")
    at_least: AtLeast = Field(0.5, description="Share of the training rows without which the run ends.")


def _as_it_is(user: Any) -> Any:
    """A model that runs here is not fitted: that would unlearn it to write freely."""
    here = isinstance(user, Mapping) and user.get("kind", "transformers") == "transformers"
    return {"kind": "transformers", "fit": None, **user} if here else user


Player = Annotated[
    Annotated[TransformersTeacher | EndpointTeacher, Field(discriminator="kind")], BeforeValidator(_as_it_is)
]


_UNUSED_BEHIND_AN_ENDPOINT = {
    "temperature": "`converse.temperature` is for both",
    "top_p": "`converse.top_p` is for both",
    "system": "`converse.personas` say who it is",
    "seed": "its words are drawn by the run's",
}
_UNUSED_HERE = {"fit": "it plays as it is", "price": "it costs machine time alone"}


class Converse(Draws):
    """New rows for the pool that are talks: the teacher is the assistant, it or another plays the user by a persona."""

    rows: int = Field(ge=1, description="Talks wanted.")
    personas: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = Field(
        description="Who the user is, in a sentence each; talks take them in turn."
    )
    user: Player | None = Field(
        None,
        description="Who plays the user: another model, which is not fitted, or one behind an endpoint, with a key and "
        "a price of its own; null: the teacher does.",
    )
    turns: int = Field(3, ge=2, le=32, description="Messages of the user in a talk, the opening and the last included.")
    at_least: AtLeast = Field(0.8, description="Share of the talks without which the run ends.")
    max_message_tokens: int = Field(128, ge=1, description="Tokens of a message that is written as the user.")

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Converse:
        if self.user is None:
            return self
        unused = _UNUSED_BEHIND_AN_ENDPOINT if isinstance(self.user, EndpointTeacher) else _UNUSED_HERE
        if isinstance(self.user, EndpointTeacher) and self.user.n > 1:
            raise ValueError("`user.n`: a talk has one message at a time")
        for name, why in unused.items():
            if getattr(self.user, name):
                raise ValueError(f"`user.{name}` has no meaning for one that plays the user: {why}")
        return self
