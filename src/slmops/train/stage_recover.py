"""Recovery as a stage of a run: the student teaches its rounded self what rounding takes from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.compress import CompressSettings
from slmops.recipe.objective import ForwardKl, TextTerm
from slmops.recipe.settings import Settings
from slmops.recipe.student import Head
from slmops.recipe.training import Optimisation
from slmops.train.kept import train_and_save
from slmops.train.stage import LIBRARIES, DistilSettings, lessons_of, validation_of


class RecoverSettings(Settings):
    """How the rounded student moves, and the form that it is to ship in."""

    optimisation: Optimisation
    ships: CompressSettings
    head: Head
    max_cut_off: float


class Recover:
    """`student` (trained), `carved` (what it began as), `data`, `answers` → `model/`, on the grid that it ships on.

    It learns from the probabilities of the student as it was, on the texts that this one learned from, with its weights
    rounded in every step: quantisation-aware distillation of a model by itself (as Liu et al. 2023, LLM-QAT, but on
    given texts). An input `teacher` where the answers are in tokens of its own, or are marked.
    """

    name: ClassVar[str] = "recover"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: RecoverSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import task_of
        from slmops.train.objectives.observe import TeacherModel
        from slmops.train.prepare import fitting

        folder, data, moved = inputs["student"] / "model", inputs["data"], settings.optimisation
        # The texts alone: whose words they are, and in which tokens, does not matter to a model that follows itself.
        read = DistilSettings(
            optimisation=moved,
            objective=[TextTerm()],
            normalise=False,
            head=settings.head,
            max_cut_off=settings.max_cut_off,
        )
        every, _ = lessons_of({**inputs, "student": inputs["carved"]}, read)
        examples = fitting(every.examples, every.names, folder, max_too_long=moved.max_too_long)
        return train_and_save(
            folder,
            examples,
            moved,
            context,
            objective=[ForwardKl(logits="online")],
            teacher=TeacherModel(folder),
            rounding=settings.ships,
            validation=validation_of(data, task_of(data), Tokenizer.load(folder), read, folder),
            left_out={**every.left_out, "too_long": len(every.examples) - len(examples)},
            title=f"recover on {len(examples)} rows",
        )
