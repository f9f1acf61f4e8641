"""What terms need that compare the rows of a batch: labels or texts of the examples, and batches that hold some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer
from slmops.recipe.objective import Objective
from slmops.train.examples import Example
from slmops.train.objectives.base import STATES, VECTORS
from slmops.train.objectives.make import all_needs


def comparable(
    examples: Sequence[Example],
    labels: Sequence[str | None],
    texts: Iterable[tuple[str, str]],
    tokenizer: Tokenizer,
    objective: Objective,
) -> list[Example]:
    """The examples with what terms of the objective compare them by; as they are where none does.

    Args:
        labels: the label of each; None where an answer has none.
        texts: the input and the answer of each, which become the tokens that a server would make of them.
    """
    needs, made = all_needs(objective), list(examples)
    if STATES in needs:
        made = [replace(example, label=label) for example, label in zip(made, labels, strict=True)]
    if VECTORS in needs:

        def tokens(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode_plain(text)[0])

        made = [
            replace(example, texts=(tokens(asked), tokens(answer)))
            for example, (asked, answer) in zip(made, texts, strict=True)
        ]
    return made


def compared_share(needs: frozenset[str], examples: Sequence[Example], plan: Sequence[Sequence[int]]) -> float | None:
    """The share of the rows, over all batches, that a term has something to compare with; None where none compares.

    A label needs another row of it and one of another; a text, another answer than its own.

    Raises:
        BadInput: no row has.
    """
    if not needs & {STATES, VECTORS}:
        return None
    rows = sum(map(len, plan))
    found = [sum(of(examples, batch) for batch in plan) for need, of in _COMPARED.items() if need in needs]
    if not all(found):
        raise BadInput(
            "train.objective compares the rows of a batch, and no batch has two rows of one label beside one of "
            "another, or two answers",
            hint="raise batch_tokens, or leave the term out",
        )
    return min(found) / rows


def _by_label(examples: Sequence[Example], batch: Sequence[int]) -> int:
    labels = Counter(label for i in batch if (label := examples[i].label) is not None)
    return sum(count for count in labels.values() if count > 1) if len(labels) > 1 else 0


def _by_answer(examples: Sequence[Example], batch: Sequence[int]) -> int:
    answers = {texts[1] for i in batch if (texts := examples[i].texts) is not None}
    return len(batch) if len(answers) > 1 else 0


_COMPARED = {STATES: _by_label, VECTORS: _by_answer}
