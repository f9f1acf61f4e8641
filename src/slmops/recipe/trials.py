"""How a search over a recipe's own settings is bounded."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from slmops.recipe.settings import Settings

LOSS = "loss"
"""What `tune.figure` calls the loss on the validation rows."""

SEARCHED = ("train", "student")
"""Parts of a recipe that a search may move: nothing in them changes what a teacher answers."""

Bound = int | Annotated[float, Field(strict=True)]


class Space(Settings):
    """The values that a setting may have: numbers from `low` to `high`, or `choices`.

    Two integers make a range of integers. With `log`, values are drawn evenly by their logarithm.
    """

    low: Bound | None = Field(None, description="Least value.")
    high: Bound | None = Field(None, description="Greatest value, included.")
    log: bool = Field(False, description="Draw by the logarithm: for what spans several powers of ten.")
    step: Bound | None = Field(None, gt=0, description="Distance of two values, counted from `low`; not with `log`.")
    choices: Annotated[list[JsonValue], Field(min_length=2)] | None = Field(
        None, description="Values in the place of a range; any that the setting can have."
    )

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> Space:
        if self.choices is not None:
            if given := self.model_fields_set - {"choices"}:
                raise ValueError(f"`choices` and `{min(given)}` exclude each other")
            if len(set(self.written_choices)) < len(self.choices):
                raise ValueError("`choices` has a value twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give `low` and `high`, or `choices`")
        if self.low >= self.high:
            raise ValueError(f"`low` ({self.low:g}) must lie below `high` ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"with `log: true`, `low` must be above 0, and it is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("`log` and `step` exclude each other")
        if self.whole and isinstance(self.step, float):
            raise ValueError(f"`low` and `high` are integers, so `step` must be one, and it is {self.step:g}")
        return self

    @property
    def whole(self) -> bool:
        """Whether values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def written_choices(self) -> list[str]:
        """`choices` as JSON text, so that any value can stand for itself in a database."""
        return [json.dumps(choice, sort_keys=True) for choice in self.choices or ()]

    @property
    def ends(self) -> list[Any]:
        """Values that show whether the setting can have all: both ends of a range, or every choice."""
        return [self.low, self.high] if self.choices is None else self.choices

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn, but for `step`."""
        if self.choices is not None:
            return json.dumps(value, sort_keys=True) in self.written_choices
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and not (self.whole and value % 1)


class TuneSettings(Settings):
    """A search for better settings, by training students with others. `slmops tune` does it, `slmops run` does not."""

    space: Annotated[dict[str, Space], Field(min_length=1)] = Field(
        description="Setting by its dotted name, as `train.learning_rate`, to its values; settings of `train` and "
        "`student`."
    )
    trials: int = Field(20, ge=2, description="Students to train, the recipe as it is written among them.")
    figure: str | None = Field(
        None,
        description="What is to be best on the validation rows: a figure of the task, null for its main one, or "
        "`loss`, which needs `train.stop_early`.",
    )
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="tpe draws where trials were good (Bergstra et al. 2011); random draws anywhere."
    )
    prune: Literal["median", "halving"] | None = Field(
        None,
        description="Which trials end early, by the validation loss of `train.stop_early`: median those worse than "
        "half of the others so far (Golovin et al. 2017), halving all but the best third of those that come as far "
        "(Li et al. 2020, ASHA); null none.",
    )
    cpus: int = Field(
        1, ge=1, description="Cores that a trial takes of a machine of the cluster, with `executor: ray`."
    )
    gpus: int = Field(0, ge=0, description="GPUs that it takes there.")
    storage: str | None = Field(
        None,
        description="A PostgreSQL database that machines share, as `postgresql://host/name`; who logs in stands in the "
        "environment (`PGUSER`, `PGPASSWORD`). null: a file in the home.",
    )

    @field_validator("space")
    @classmethod
    def _of_the_student(cls, space: dict[str, Space]) -> dict[str, Space]:
        for name in space:
            if name.partition(".")[0] not in SEARCHED or "." not in name:
                raise ValueError(
                    f"`{name}` cannot be searched: a setting below {' or '.join(SEARCHED)} can, for the others change "
                    "what is learned from or measured"
                )
        return space

    @field_validator("storage")
    @classmethod
    def _without_secrets(cls, storage: str | None) -> str | None:
        if storage is None:
            return None
        url = urlsplit(storage)
        if url.scheme != "postgresql":
            raise ValueError("must be a URL that begins with postgresql://")
        if url.username or url.password or url.query:
            raise ValueError(
                "a recipe holds no credentials: write postgresql://host/name, and set PGUSER and PGPASSWORD in the "
                "environment"
            )
        return storage
