"""Which layers of teacher and student are compared."""

from __future__ import annotations

from collections.abc import Sequence

from slmops.errors import BadInput
from slmops.models.carve import evenly_spaced
from slmops.train.objectives.base import Models


def matched(models: Models) -> list[int]:
    """The teacher's layer for each layer of the student: the one it was cut from, else evenly spaced ones.

    Evenly spaced is the mapping function of Jiao et al. 2020 (TinyBERT, section 3.1), with both ends kept.
    """
    if models.cut_from is not None:
        return list(models.cut_from)
    return evenly_spaced(models.teacher.layers, models.student.layers)


def chosen(
    student: Sequence[int] | None, teacher: Sequence[int] | None, models: Models, *, name: str
) -> list[tuple[int, int]]:
    """Pairs of teacher layer and student layer.

    Args:
        student: the student's layers; None takes all that move.
        teacher: the teacher's layer for each of them; None takes the matched ones.
        name: of the term, for the message.

    Raises:
        BadInput: a layer is out of range.
    """
    ours = list(range(models.still, models.student.layers)) if student is None else list(student)
    in_range(ours, models.student.layers, f"train.objective: {name}.student_layers", "student")
    theirs = [matched(models)[layer] for layer in ours] if teacher is None else list(teacher)
    in_range(theirs, models.teacher.layers, f"train.objective: {name}.teacher_layers", "teacher")
    return list(zip(theirs, ours, strict=True))


def in_range(layers: Sequence[int], count: int, place: str, whose: str) -> None:
    """Refuse layer numbers that a model lacks.

    Raises:
        BadInput: one is not in 0..count - 1; `place` says where it was asked for.
    """
    if odd := [layer for layer in layers if not 0 <= layer < count]:
        raise BadInput(
            f"{place}: the {whose} has no layer {odd[0]}: it has {count} layers",
            hint=f"its layers are 0 to {count - 1}",
        )
