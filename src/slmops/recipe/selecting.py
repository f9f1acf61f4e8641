"""Which rows of the pool a teacher is asked: all at once, or the telling ones in rounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from slmops.recipe.data import Similarity
from slmops.recipe.settings import Settings


class Select(Settings):
    """The pool is answered in rounds. After each of them a student is trained on what there is so far, as `student` and
    `train` say, and says which rows come next.
    """

    by: Literal["uncertainty", "random"] = Field(
        "uncertainty",
        description="uncertainty: the rows of which the student is least sure; random: any, in rounds all the same, to "
        "see the curve and to stop by it.",
    )
    first: int = Field(100, ge=1, description="Rows of the first round, drawn by the recipe's seed.")
    rows: int = Field(100, ge=1, description="Rows of every further round.")
    rounds: int = Field(5, ge=1, description="Further rounds, at most.")
    patience: int = Field(2, ge=1, description="Rounds without a gain after which it ends.")
    min_gain: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="How much these rounds together must add to the task's main figure on the validation rows; 0.005: "
        "half a point.",
    )
    candidates: int | None = Field(
        2000, ge=1, description="Rows of the rest that a student looks at in a round, drawn anew; null: all."
    )
    unlike: Similarity | None = Field(
        0.5,
        description="uncertainty: similarity from which two rows are not taken in one round, while there are others; "
        "null takes them.",
    )


def _by_its_measure(given: Any) -> Any:
    return {"by": given} if isinstance(given, str) else given


MaybeSelect = Annotated[Select | None, BeforeValidator(_by_its_measure)]
"""`uncertainty` is short for `{by: uncertainty}`."""
