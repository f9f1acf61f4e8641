"""The objective of one training, bound to the models it compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from slmops.errors import BadInput
from slmops.progress import Progress
from slmops.recipe.objective import Term as TermSettings
from slmops.train.examples import Example
from slmops.train.objectives.base import (
    ATTENTION,
    HIDDEN,
    IN_STUDENTS_TOKENS,
    OF_TEACHER,
    ONLINE,
    ONLINE_SPANS,
    SPANS,
    STATES,
    STORED,
    STORED_SPANS,
    VECTORS,
    Bound,
    Layers,
    Models,
    Paired,
    Spans,
    Term,
    View,
)
from slmops.train.objectives.custom import Custom
from slmops.train.objectives.make import make_terms
from slmops.train.objectives.mixture import Mixture
from slmops.train.objectives.observe import (
    Inputs,
    Taps,
    Teacher,
    TeacherModel,
    answer_logits,
    answer_states,
    every_nth,
    head_logits,
    label_weights,
    labels_asked,
    row_states,
    row_vectors,
    shape_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTACHED = "imitation"
"""The student's submodule that holds what the objective learns and measures, while it is trained."""


class Imitation:
    """Terms, their weights, and the teacher where one must run.

    `attach` before the optimiser is made and `detach` when training is done; in between, `terms` for every batch.
    """

    def __init__(
        self,
        objective: Sequence[TermSettings],
        student: PreTrainedModel,
        *,
        teacher: TeacherModel | None = None,
        still: int = 0,
        normalise: bool = False,
        every: int = 1,
    ) -> None:
        """Bind the terms.

        Args:
            objective: as in the recipe.
            student: the whole model.
            still: lowest layers that do not move.
            normalise: see `Mixture`.
            every: compare the models at every n-th predicted position alone; see `every_nth`.

        Raises:
            BadInput: a term needs a teacher and there is none, or does not fit the two models, or `every`.
        """
        terms = make_terms(objective)
        self.needs = frozenset[str]().union(*(term.needs for term in terms))
        if every > 1 and self.needs & SPANS:
            raise BadInput("terms that go by spans of text need every token, not every n-th alone", hint="set every: 1")
        self._teacher: Teacher | None = None
        self._layers: dict[str, list[tuple[int, int]]] = {HIDDEN: [], ATTENTION: []}
        if wanting := [term.name for term in terms if term.needs & OF_TEACHER]:
            if teacher is None:
                raise BadInput(f"train.objective: {wanting[0]} needs the teacher's model beside the student")
            self._bind(terms, student, teacher, still)
        self.mixture = Mixture(terms, [term.weight for term in objective], normalise=normalise)
        self.still, self.every = still, every
        self._taps: Taps | None = None
        self._attention_before: str | None = None

    def _bind(self, terms: Sequence[Term], student: PreTrainedModel, teacher: TeacherModel, still: int) -> None:
        self._teacher = Teacher(teacher, dtype=student.dtype, logits=ONLINE in self.needs)
        models = Models(shape_of(student), shape_of(self._teacher.model), teacher.cut_from, still)
        if self.needs & IN_STUDENTS_TOKENS:
            _check_vocabularies(student, self._teacher)
        for term in terms:
            if term.needs & {HIDDEN, ATTENTION} and isinstance(term, Bound):
                term.bind(models)
            asking = term.inner if isinstance(term, Custom) else term
            for need in term.needs & {HIDDEN, ATTENTION}:
                self._layers[need] += asking.pairs if isinstance(asking, Paired) else _all(models)
        self._teacher.tap(hidden=self._of(HIDDEN, 0), attention=self._of(ATTENTION, 0))

    def _of(self, need: str, side: int) -> list[int]:
        """Layers to be shown, of the teacher (side 0) or the student (side 1)."""
        return sorted({pair[side] for pair in self._layers[need]})

    @property
    def names(self) -> list[str]:
        """What the terms are called, in the order of the recipe."""
        return [term.name for term in self.mixture.terms]

    @property
    def teacher_weights(self) -> list[torch.Tensor]:
        """Of the teacher that runs beside the student; none where none does."""
        return list(self._teacher.model.parameters()) if self._teacher else []

    @property
    def teacher_bytes(self) -> int:
        """Size of these weights."""
        return sum(weight.nbytes for weight in self.teacher_weights)

    @property
    def reads_still_layers(self) -> bool:
        """Whether a term looks at layers that do not move, or at other texts: then the student is run as a whole."""
        return VECTORS in self.needs or any(ours < self.still for pairs in self._layers.values() for _, ours in pairs)

    @property
    def looks_inside(self) -> bool:
        """Whether a term looks at the student's layers, and not at what it says alone."""
        return any(self._layers.values())

    def read(self, examples: Sequence[Example], progress: Progress) -> None:
        """Let the teacher read the examples once, before several passes over them; see `Teacher.read`."""
        if self._teacher:
            self._teacher.read(examples, progress)

    def attach(self, student: PreTrainedModel) -> None:
        """Make what the terms learn a part of the student, and listen to its layers."""
        student.add_module(ATTACHED, self.mixture)
        hidden, attention = self._of(HIDDEN, 1), self._of(ATTENTION, 1)
        if attention:
            # The fused kernels never form the maps.
            self._attention_before = student.config._attn_implementation
            student.set_attn_implementation("eager")
        self._taps = Taps(student, hidden=hidden, attention=attention)

    def detach(self, student: PreTrainedModel) -> None:
        """Leave the student as a plain model."""
        delattr(student, ATTACHED)
        if self._taps:
            self._taps.close()
        if self._attention_before:
            student.set_attn_implementation(self._attention_before)

    def terms(self, student: Any, inputs: Inputs) -> dict[str, tuple[float | torch.Tensor, torch.Tensor]]:
        """Each term of one batch by name: its factor in the loss, and its value.

        Where `inputs` are marked `own`, their answers are the student's: see `Mixture.forward`.
        """
        terms: dict[str, tuple[float | torch.Tensor, torch.Tensor]]
        terms = self.mixture(self.view(student, inputs), own="own" in inputs)
        return terms

    def view(self, student: Any, inputs: Inputs) -> View:
        """Run the student, and the teacher where one is needed, over a batch."""
        inputs = every_nth(inputs, self.every)
        at, given = inputs["predicts"], "own" not in inputs
        rows: dict[str, Any] = {}
        if STATES in self.needs and given:
            states = answer_states(student, inputs)
            logits = head_logits(student, states, inputs)
            rows = {"states": row_states(student, states, inputs), "labels": inputs.get("labels", _no_labels(at))}
        else:
            logits = answer_logits(student, inputs)
        shown: dict[str, Any] = {
            **rows,
            "weights": label_weights(student, inputs),
            "asked": labels_asked(student, inputs),
        }
        shown["counts"] = inputs.get("counts")
        if STORED in self.needs and given:
            shown |= {"stored_ids": inputs["soft_ids"], "stored_log_probs": inputs["soft_log_probs"]}
        if STORED_SPANS in self.needs and given:
            shown["stored_spans"] = Spans(inputs["span_of"], inputs["span_log_probs"], inputs["span_begins"])
        if self._teacher and ONLINE_SPANS in self.needs and given:
            shown["online_spans"] = self._teacher.read_spans(inputs)
        if self._teacher and self.needs & IN_STUDENTS_TOKENS:
            teacher_logits, *theirs = self._teacher.run(inputs)
            shown |= {"teacher_logits": teacher_logits, "kept": self._teacher.kept}
            if self._taps:
                ours = self._taps.take(at)
                hidden, attention = (Layers(*pair) for pair in zip(ours, theirs, strict=True))
                shown |= {"hidden": hidden, "attention": attention}
        if VECTORS in self.needs and given:
            # Behind what was taken of the layers: they are run once more.
            shown["vectors"] = row_vectors(student, inputs)
        return View(logits, inputs["target"], **shown)


def _no_labels(at: torch.Tensor) -> torch.Tensor:
    """Of a batch in which no answer has a label."""
    return torch.full((len(at),), -1, device=at.device)


def _all(models: Models) -> list[tuple[int, int]]:
    """Every layer of either model at least once."""
    ours, theirs = models.student.layers, models.teacher.layers
    return [(min(i, theirs - 1), min(i, ours - 1)) for i in range(max(ours, theirs))]


def _check_vocabularies(student: PreTrainedModel, teacher: Teacher) -> None:
    """A student whose tokens are the first of its teacher's keeps these; one with more cannot be compared.

    Raises:
        BadInput: it has more.
    """
    if teacher.kept is not None:
        return
    ours, theirs = student.config.vocab_size, teacher.model.config.vocab_size
    if ours > theirs:
        raise BadInput(
            f"train.objective: the student has {ours} tokens, the teacher {theirs}, and no map between them is known",
            hint="use kinds that go by the words alone: text",
        )
    if ours < theirs:
        teacher.kept = torch.arange(ours)
