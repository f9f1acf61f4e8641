"""Where attention heads look: the student's maps pulled towards the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from slmops.errors import BadInput
from slmops.train.objectives.base import ATTENTION, Models, View
from slmops.train.objectives.layers import chosen

if TYPE_CHECKING:
    import torch

LEAST = 1e-12
"""Below this a probability counts as this much, so that its logarithm is finite."""


def attention_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over tokens and heads of KL(teacher ‖ student) over the positions looked at (Wang et al. 2020, section 3.1).

    Args:
        student: probabilities, float32 [n, heads, length]; 0 at what cannot be seen, as in the teacher's.
    """
    import torch

    terms = teacher * (teacher.clamp(min=LEAST).log() - student.clamp(min=LEAST).log())
    return torch.where(teacher > 0, terms, 0.0).sum(-1).mean()


def attention_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over tokens and heads of the summed squared difference; [n, heads, length] each.

    The sum, and not the mean, over positions: how long the longest row of a batch is must not count. (Jiao et al. 2020,
    equation 7, takes the mean over scores.)
    """
    return (student - teacher).square().sum(-1).mean()


DISTANCES = {"kl": attention_kl, "mse": attention_mse}


@dataclass
class Attention:
    """Attention transfer: the mean over paired layers of the distance of their maps (Wang et al. 2020, MiniLM).

    Unless told, the pair is the last layer of both, as in MiniLM (section 3.1): deeper students need no layer map.
    """

    name: str
    student_layers: Sequence[int] | None
    teacher_layers: Sequence[int] | None
    distance: Literal["kl", "mse"]
    heads: Literal["each", "mean"]
    pairs: Sequence[tuple[int, int]] = field(default=(), init=False)

    needs: ClassVar[frozenset[str]] = frozenset({ATTENTION})

    def bind(self, models: Models) -> None:
        """Choose the pairs.

        Raises:
            BadInput: a layer is out of range, or the models have not as many heads and each is to be compared.
        """
        ours, theirs = self.student_layers, self.teacher_layers
        if ours is None:
            ours, theirs = [models.student.layers - 1], [models.teacher.layers - 1]
        self.pairs = chosen(ours, theirs, models, name=self.name)
        student, teacher = models.student.heads, models.teacher.heads
        if self.heads == "each" and student != teacher:
            raise BadInput(
                f"train.objective: {self.name}: the student has {student} attention heads, the teacher {teacher}",
                hint="set heads: mean, so that the mean over heads is compared",
            )

    def loss(self, view: View) -> torch.Tensor:
        import torch

        assert view.attention is not None  # noqa: S101
        distance = DISTANCES[self.distance]
        maps = [(view.attention.student[ours], view.attention.teacher[theirs]) for theirs, ours in self.pairs]
        if self.heads == "mean":
            maps = [(student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)) for student, teacher in maps]
        return torch.stack([distance(student, teacher) for student, teacher in maps]).mean()
