"""What a term of the loss is, and what it is shown of student and teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

STORED, ONLINE, HIDDEN, ATTENTION = "stored", "online", "hidden", "attention"
STORED_SPANS, ONLINE_SPANS = "stored_spans", "online_spans"
STATES, VECTORS = "states", "vectors"

TOKEN_BY_TOKEN = frozenset({STORED, ONLINE, HIDDEN, ATTENTION})
"""Needs that set position beside position, so that both models must have the same tokens."""

SPANS = frozenset({STORED_SPANS, ONLINE_SPANS})
"""Needs that set spans of text side by side, whatever tokens they are made of."""

OF_ROWS = frozenset({STATES, VECTORS})
"""Needs of terms that compare the rows of a batch: they are met by the student and the rows alone."""

NEEDS = TOKEN_BY_TOKEN | SPANS | OF_ROWS
"""What a term may need beside the student's logits and the words: each fills some fields of its `View`."""

IN_STUDENTS_TOKENS = frozenset({ONLINE, HIDDEN, ATTENTION})
"""Needs for which the teacher reads what the student reads."""

OF_TEACHER = IN_STUDENTS_TOKENS | {ONLINE_SPANS}
"""Needs for which the teacher's model runs beside the student."""


def judges_own_answers(needs: frozenset[str]) -> bool:
    """Whether a term can be had of answers that the student has just written.

    Nothing was stored of those, nor are they aligned with the teacher's tokens, and their words are not to be imitated:
    only a teacher that reads them beside the student can judge.
    """
    return bool(needs & IN_STUDENTS_TOKENS) and not needs & (SPANS | {STORED})


@dataclass(frozen=True)
class Layers:
    """What chosen layers of both models made of the answer positions, by layer number; the first is 0.

    Of hidden states the tensors are float32 [n, width], of attention maps float32 [n, heads, length]. The length is
    that of the longest row of the batch; what lies behind a position or beyond its row is 0.
    """

    student: Mapping[int, torch.Tensor]
    teacher: Mapping[int, torch.Tensor]


@dataclass(frozen=True)
class Spans:
    """The answers of a batch as s spans of text, at whose ends a token ends in both models' tokenizations.

    Attributes:
        of: the span of each of the student's n positions, int64 [n], from 0 on in their order.
        log_probs: the teacher's log-likelihood of each span's text, float32 [s]; NaN where it is not known.
        begins: the teacher's next-token log-probabilities where each span begins, in any order, float32 [s, k]; NaN
            where they are not known. Stored they are the highest k, online those of its whole vocabulary.
    """

    of: torch.Tensor
    log_probs: torch.Tensor
    begins: torch.Tensor


@dataclass(frozen=True)
class Vectors:
    """The rows of a batch and their answers as `/v1/embeddings` serves them (`slmops.serve.embedding`).

    Attributes:
        inputs: of the text of each row, of length one, float32 [rows, width].
        answers: of each answer that a row of the batch has, once, likewise, float32 [answers, width].
        of: the answer of each row, int64 [rows].
    """

    inputs: torch.Tensor
    answers: torch.Tensor
    of: torch.Tensor


@dataclass(frozen=True)
class View:
    """One batch as a term sees it: n positions, each of which predicts an answer token.

    Attributes:
        logits: the student's, float32 [n, V], V being its vocabulary.
        target: the tokens of the answers, or their labels, int64 [n]; with `train.on_policy` some batches have the
            student's own.
        weights: float32 [n] of a model that labels, how much each of its labels counts; its `logits` are
            log-probabilities.
        counts: float32 [n] where the recipe weighs classes: how much the answer counts that each token is of.
        asked: bool [n, V] of a model that labels: the labels that one is chosen from at each position.
        stored_ids: need `stored`: the teacher's most likely tokens, int64 [n, k]; -1 where the student lacks one.
        stored_log_probs: need `stored`: their log-probabilities under the teacher's softmax, float32 [n, k].
        teacher_logits: need `online`: float32 [n, V of the teacher].
        kept: int64 [V], the teacher's id of each of the student's tokens; None when their vocabularies are the same.
        hidden: need `hidden`: what the layers put out, before any final norm.
        attention: need `attention`: attention probabilities.
        stored_spans: need `stored_spans`: by what was kept with each answer.
        online_spans: need `online_spans`: by a teacher that reads the same texts in its own tokens.
        states: need `states`: what the student's head reads of each row, float32 [rows, width]: the state that predicts
            the first token of its answer, or of a model that labels the mean over the tokens that it labels.
        labels: need `states`: the label of each row as a number of the batch's own, int64 [rows]; -1 where it has none.
        vectors: need `vectors`: of the rows' inputs and answers.
    """

    logits: torch.Tensor
    target: torch.Tensor
    weights: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    asked: torch.Tensor | None = None
    stored_ids: torch.Tensor | None = None
    stored_log_probs: torch.Tensor | None = None
    teacher_logits: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    hidden: Layers | None = None
    attention: Layers | None = None
    stored_spans: Spans | None = None
    online_spans: Spans | None = None
    states: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    vectors: Vectors | None = None


@runtime_checkable
class Term(Protocol):
    """One term of the loss.

    A term that learns weights of its own is a `torch.nn.Module`: they move and are checkpointed with the student.
    """

    @property
    def name(self) -> str:
        """What logs and figures call it."""

    @property
    def needs(self) -> frozenset[str]:
        """Of `NEEDS`: what its `View` must hold."""

    def loss(self, view: View) -> torch.Tensor:
        """A scalar: the mean per answer token, or per row, with a gradient for the student."""


@dataclass(frozen=True)
class Shape:
    """The form of a model: its number of layers, the width of its hidden states, its attention heads."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True)
class Models:
    """The two models that a term will see.

    Attributes:
        cut_from: teacher layer that each student layer was cut from; None when the student is no cut of the teacher.
        still: lowest student layers that do not move.
    """

    student: Shape
    teacher: Shape
    cut_from: Sequence[int] | None = None
    still: int = 0


@runtime_checkable
class Bound(Protocol):
    """A term with need `hidden` or `attention` that wants to know the two models first."""

    def bind(self, models: Models) -> None:
        """Called once, before training.

        Raises:
            BadInput: a layer is out of range, or the two models do not fit together.
        """


@runtime_checkable
class Paired(Protocol):
    """A term that is shown some layers only; one that is none is shown all."""

    @property
    def pairs(self) -> Sequence[tuple[int, int]]:
        """Teacher layer and student layer of each pair; known once the term is bound."""
