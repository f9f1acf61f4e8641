"""How the pool is answered: by one teacher, or by several together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field, model_validator

from slmops.recipe.curating import Curate
from slmops.recipe.selecting import MaybeSelect
from slmops.recipe.settings import Settings
from slmops.recipe.teachers import Asking
from slmops.recipe.writing import Converse, Reason, Write

LABEL = "label"
"""As `Combine.by`: rows are routed by what the first teacher answers, not by a field of theirs."""


class Combine(Settings):
    """How several teachers make one answer to each row of the pool."""

    how: Literal["weighted", "routed", "judged"] = Field(
        "weighted",
        description="weighted: every teacher answers every row, the answer with the most weight behind it is learned, "
        "and probabilities are mixed; routed: each row is answered by one teacher; judged: every teacher but `judge` "
        "answers every row, and the one that `judge` finds best is learned.",
    )
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="weighted: what a teacher counts, by its name; one that is not named counts 1.",
    )
    by: str | None = Field(
        None,
        min_length=1,
        description="routed: the field of the pool's rows that decides, such as `source`; or `label`: what the first "
        "teacher answers.",
    )
    routes: dict[str, str] = Field(default_factory=dict, description="routed: the teacher's name for each value.")
    otherwise: str | None = Field(None, description="routed: the teacher of all other rows; null refuses such rows.")
    judge: str | None = Field(
        None, description="judged: the name of the teacher that judges and does not answer; not the first one."
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Combine:
        own = {"weighted": ("weights",), "routed": ("by", "routes", "otherwise"), "judged": ("judge",)}
        for how, names in own.items():
            if how != self.how and (odd := [name for name in names if getattr(self, name)]):
                raise ValueError(f"`{odd[0]}` is for `how: {how}`")
        if self.how == "judged" and self.judge is None:
            raise ValueError("`how: judged` needs `judge`, the name of the teacher that judges")
        if self.how != "routed":
            return self
        if not self.by or not self.routes:
            raise ValueError("`how: routed` needs `by`, the field that decides, and `routes`, a teacher for each value")
        if self.by == LABEL and self.otherwise is None:
            raise ValueError("`by: label` needs `otherwise`: what the first teacher will answer is not known before")
        return self

    def check(self, teachers: Sequence[str]) -> None:
        """Refuse what does not go with the teachers of these names.

        Raises:
            ValueError: there is one teacher alone, a name is unknown, or a teacher has nothing to do.
        """
        if len(teachers) == 1:
            raise ValueError("`combine` is for several teachers, and there is one")
        for place, name in self._named():
            if name not in teachers:
                near = get_close_matches(name, teachers, n=1)
                known = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(teachers)}"
                raise ValueError(f"combine.{place}: there is no teacher `{name}`; {known}")
        if self.judge == teachers[0]:
            raise ValueError(f"combine.judge: `{self.judge}` is the first teacher, which answers; name another one")
        if self.how != "routed":
            return
        routed = {name for _, name in self._named()} | ({teachers[0]} if self.by == LABEL else set())
        if idle := [name for name in teachers if name not in routed]:
            raise ValueError(f"combine: no route leads to the teacher `{idle[0]}`")

    def _named(self) -> Iterator[tuple[str, str]]:
        """Every name of a teacher and the key it stands at."""
        yield from ((f"weights.{name}", name) for name in self.weights)
        yield from ((f"routes.{value}", name) for value, name in self.routes.items())
        if self.otherwise is not None:
            yield "otherwise", self.otherwise
        if self.judge is not None:
            yield "judge", self.judge


class Budget(Settings):
    """What an endpoint may cost for this pool in all, what it writes included, in whichever runs that was bought."""

    usd: float | None = Field(None, gt=0, description="Money, at the teacher's `price`.")
    tokens: int | None = Field(None, ge=1, description="Tokens read and written.")
    requests: int | None = Field(None, ge=1, description="Requests sent, those that failed included.")
    minutes: float | None = Field(None, gt=0, description="Time of asking, of one step of a run.")


class TeachSettings(Asking):
    """Stage one of distillation: the teachers answer the pool."""

    budget: Budget = Field(
        default_factory=Budget,
        description="For a teacher behind an endpoint: what it may cost; without one there is no cap.",
    )

    select: MaybeSelect = Field(
        None,
        description="Ask for the pool in rounds, where it teaches most, and stop when it teaches no more; "
        "`uncertainty` and `random` are short for `{by: …}`. null asks for all of it.",
    )

    curate: Curate = Field(default_factory=Curate, description="Which of the answers are learned from.")

    combine: Combine | None = Field(
        None, description="How several teachers make one answer; null: weighted, and each counts 1."
    )
    write: Write | None = Field(None, description="New rows for the pool, from training rows; null: none.")
    converse: Converse | None = Field(
        None, description="New rows for the pool that are talks (`task.kind: conversation`); null: none."
    )
    reason: Reason | None = Field(
        None, description="Solutions with their steps in place of bare answers (`task.kind: maths`); null: none."
    )
