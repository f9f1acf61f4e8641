"""How much each example counts, by the class of its answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from slmops.errors import BadInput
from slmops.recipe.objective import Objective, TextTerm
from slmops.train.examples import Example


def weighed(examples: Sequence[Example], labels: Sequence[str | None], objective: Objective) -> list[Example]:
    """The examples with what each counts, where a term of the objective weighs classes; else as they are.

    Args:
        labels: the class of each; None where an answer has none, which counts 1.

    Raises:
        BadInput: a class is weighed that no example has.
    """
    asked = [term.class_weights for term in objective if isinstance(term, TextTerm) and term.class_weights]
    if not asked:
        return list(examples)
    weights = class_weights(labels, asked[0])
    counts = (1.0 if label is None else weights.get(label, 1.0) for label in labels)
    return [replace(example, counts=count) for example, count in zip(examples, counts, strict=True)]


def class_weights(
    labels: Sequence[str | None], asked: Literal["balanced"] | Mapping[str, float]
) -> Mapping[str, float]:
    """What an answer of each class counts: n / (k n_c) of n answers in k classes (King and Zeng 2001), or as asked.

    Raises:
        BadInput: a class is asked for that there is not.
    """
    rows = Counter(label for label in labels if label is not None)
    if asked == "balanced":
        return {label: rows.total() / (len(rows) * count) for label, count in rows.items()}
    if odd := sorted(asked.keys() - rows.keys()):
        raise BadInput(
            f"train.objective: class_weights names {odd[0]}, and no answer is of that class",
            hint=f"classes there: {', '.join(sorted(rows))}",
        )
    return asked
