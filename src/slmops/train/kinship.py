"""Which of a student's tokens and layers are its teacher's: what can be compared with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from slmops.models.tokenizer import Tokenizer
from slmops.train.cut import Kept


@dataclass(frozen=True)
class Kinship:
    """What of the student goes with what of its teacher.

    Attributes:
        shared: whether the student's tokens are tokens of the teacher's.
        tokens: the teacher's id of each of them, ascending; None where the ids are the same, or not shared.
        layers: the teacher's layer that each of the student's was cut from; None when it is of another model.
    """

    shared: bool
    tokens: Sequence[int] | None = None
    layers: Sequence[int] | None = None


def kinship(kept: Kept, student: Tokenizer, teacher: Tokenizer | None) -> Kinship:
    """A student cut from its teacher knows what it kept; one of another model is told by its vocabulary.

    Args:
        teacher: may be None where the student is cut from it.
    """
    if kept.of_teacher:
        return Kinship(True, kept.tokens, kept.layers)
    assert teacher is not None  # noqa: S101
    ids = ids_at_teacher(student, teacher)
    return Kinship(ids is not None, None if ids == list(range(student.size)) else ids)


def ids_at_teacher(student: Tokenizer, teacher: Tokenizer) -> list[int] | None:
    """The teacher's id of each of the student's tokens, ascending; None where the student has tokens of its own.

    So it is within a family whose larger models know more tokens, and where a vocabulary was trimmed.
    """
    ours, theirs = (each.backend.get_vocab(with_added_tokens=True) for each in (student, teacher))
    ids = [theirs.get(token, -1) for token in sorted(ours, key=ours.__getitem__)]
    rising = all(one < other for one, other in pairwise([-1, *ids]))
    return ids if rising and len(ids) == student.size else None
