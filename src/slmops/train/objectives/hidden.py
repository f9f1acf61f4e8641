"""What layers put out: the student's hidden states pulled towards the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from slmops.errors import BadInput
from slmops.train.objectives.base import HIDDEN, Models, View
from slmops.train.objectives.layers import chosen


def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of the mean squared difference over the width; [n, width] each."""
    return (student - teacher).square().mean()


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of 1 - cos(student, teacher); [n, width] each (Sanh et al. 2019, DistilBERT, section 2)."""
    return (1 - torch.nn.functional.cosine_similarity(student, teacher, dim=-1)).mean()


DISTANCES = {"mse": mse, "cosine": cosine}


class Hidden(torch.nn.Module):
    """Hidden states of paired layers: the mean over pairs of MSE(H_student W, H_teacher).

    The formula is that of Jiao et al. 2020 (TinyBERT, equation 8), the cosine that of Sanh et al. 2019 (DistilBERT).

    W, one for all pairs, is learned where the student is narrower or wider than its teacher, as the regressor of
    Romero et al. 2015 (FitNets, equation 3); at equal width there is none.
    """

    needs: frozenset[str] = frozenset({HIDDEN})

    def __init__(
        self,
        *,
        name: str,
        student_layers: Sequence[int] | None,
        teacher_layers: Sequence[int] | None,
        distance: Literal["mse", "cosine"],
        project: bool,
    ) -> None:
        super().__init__()
        self.name, self.distance, self.project = name, distance, project
        self.student_layers, self.teacher_layers = student_layers, teacher_layers
        self.projection: torch.nn.Linear | None = None
        self._pairs: list[tuple[int, int]] = []

    @property
    def pairs(self) -> Sequence[tuple[int, int]]:
        return self._pairs

    def bind(self, models: Models) -> None:
        """Choose the pairs and, where widths differ, make the projection.

        Raises:
            BadInput: a layer is out of range, or widths differ and no projection is wanted.
        """
        self._pairs = chosen(self.student_layers, self.teacher_layers, models, name=self.name)
        ours, theirs = models.student.width, models.teacher.width
        if ours == theirs:
            return
        if not self.project:
            raise BadInput(
                f"train.objective: {self.name}: the student's hidden states have width {ours}, the teacher's {theirs}",
                hint="set project: true, so that a map between them is learned",
            )
        self.projection = torch.nn.Linear(ours, theirs, bias=False)

    def loss(self, view: View) -> torch.Tensor:
        assert view.hidden is not None  # noqa: S101
        distance = DISTANCES[self.distance]
        parts = [
            distance(self._projected(view.hidden.student[ours]), view.hidden.teacher[theirs])
            for theirs, ours in self._pairs
        ]
        return torch.stack(parts).mean()

    def _projected(self, student: torch.Tensor) -> torch.Tensor:
        if self.projection is None:
            return student
        return torch.nn.functional.linear(student, self.projection.weight.to(student.dtype))
