"""Does what ships answer as the model that it was made from? The same rows through both, each by its own engine.

What surrounds a model, the tokens of its prompts, those that end its answers and the room for both, must be the same;
where it is not, what the weights do says nothing, and what ships is not even asked. What the weights do is changed by
rounding, so it is measured:

- the divergence KL(source, shipped) of the probabilities of the first token, and of all tokens of the source's answer,
  each when the source's answer up to there is shown: so one other word does not make all behind it count as other;
- the agreement: the share of these places at which the same token is the likeliest to both;
- how far the task's main figure drops on these rows.

Where what ships has some of the source's tokens alone (`slmops.compress.vocabulary`), texts are compared. A prompt that
needs a token that was left out is spelled in smaller pieces, and how many are is told. The source's answer is shown as
it is spelled there; a token that was left out counts as the piece that it begins with, in the divergence with all of
its probability, and is agreed on where each of its pieces is the likeliest in its place.

Where the files that ship can be read back, the weights are compared besides; see `slmops.evaluate.parity_weights`.

A model that labels writes no tokens one by one. Its answer is read off labels, so these are compared. To read a message
is its first token, so that divergence is the sum over the labels of a message; and as its tokens count the places where
either of the two sees a part of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from slmops.engines.base import Prompts
from slmops.errors import BadInput
from slmops.evaluate.compare import headline
from slmops.evaluate.parity_frame import Fault, Model, differences, respelled
from slmops.evaluate.parity_sides import Chances, Reply, Side, shipped_side, source_side
from slmops.evaluate.parity_weights import Weights
from slmops.evaluate.significance import Difference, paired_bootstrap
from slmops.models.spelling import Spelling, spelling
from slmops.tasks import Row, Task
from slmops.tasks.figures import Array
from slmops.tasks.marking import OUTSIDE

_WORST = 5
"""Examples that are listed."""

_LEAST = 1e-12
"""A probability is taken to be no smaller, so that no divergence is infinite."""


@dataclass(frozen=True)
class Example:
    """A row on which both differ, with what they wrote."""

    id: str
    token_kl_nats: float
    agreement: float
    source: str
    shipped: str


@dataclass(frozen=True)
class Measured:
    """What the weights do.

    Attributes:
        first_token_kl_nats: on average; of a model that labels, of all labels of a message.
        token_kl_nats: per token of the source's answers, or per label.
        worst_kl_nats: the most that a token has.
        agreement: share of the tokens, or of the labels.
        same_answers: share of rows whose whole answers are the same.
        figure: the task's main one; `drop` is how far it lies below the source's (0.01 is a point).
        drop_interval: 95 %, from the same rows.
        worst: rows on which both differ, the least agreement first.
    """

    first_token_kl_nats: float
    token_kl_nats: float
    worst_kl_nats: float
    agreement: float
    same_answers: float
    figure: str
    drop: float
    drop_interval: tuple[float, float]
    worst: tuple[Example, ...]


@dataclass(frozen=True)
class Cut:
    """What a cut of the vocabulary does to these rows.

    Attributes:
        tokens: that are left, of `tokens_before`.
        prompts: requests that are spelled in smaller pieces.
        answers: of the source that are.
        lost: of the source's probability at the places of its answers, what tokens have that were left out.
    """

    tokens: int
    tokens_before: int
    prompts: int
    answers: int
    lost: float


@dataclass(frozen=True)
class Parity:
    """What came out.

    Attributes:
        labels: whether the models label instead of writing.
        source, shipped: engine and precision of each.
        faults: what surrounds the models and is not the same.
        measured: None where there are faults.
        weights: None where the engine's files are not read back.
        cut: None where both have the same tokens.
    """

    rows: int
    labels: bool
    source: str
    shipped: str
    faults: tuple[Fault, ...]
    measured: Measured | None
    weights: Weights | None
    cut: Cut | None = None


def parity(
    source: Model,
    shipped: Model,
    rows: Sequence[Row],
    *,
    weights: Weights | None,
    written: Prompts | None = None,
    seed: int = 0,
) -> Parity:
    """Both models, loaded beside each other, on the same rows with reference answers.

    Args:
        weights: how those of both compare, where that is known.
        written: tokens of the source's answers, where they are known.
        seed: of the resampling.

    Raises:
        BadInput: there are no rows.
    """
    theirs = source_side(source, rows, written)
    ours = shipped_side(shipped, rows, theirs, spelling(source.tokenizer, shipped.tokenizer))
    return compared(source.task, rows, theirs, ours, weights, seed=seed)


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` of `rows`, evenly from the shortest input to the longest: long ones show what short ones hide."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input"]))
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[i] for i in sorted(order[place] for place in places)]


def compared(
    task: Task, rows: Sequence[Row], source: Side, shipped: Side, weights: Weights | None, *, seed: int
) -> Parity:
    """What the parts of both models say; as `parity`."""
    if not rows:
        raise BadInput("there are no rows to ask both models", hint="give test rows with reference answers")
    faults = tuple(differences(source.frame, shipped.frame, shipped.spelled) or _overrun(shipped))
    measured = None if faults else _measured(task, rows, source, shipped, seed)
    cut = _cut(source, shipped, shipped.spelled) if shipped.spelled else None
    return Parity(len(rows), source.frame.labels, source.ran, shipped.ran, faults, measured, weights, cut)


def _cut(source: Side, shipped: Side, spelled: Spelling) -> Cut:
    places = [chances for reply in source.replies for chances in reply.chances]
    lost = math.fsum(
        math.exp(log) for ids, logs in places for id, log in zip(ids, logs, strict=True) if spelled.cuts([id])
    )
    return Cut(
        tokens=len(spelled.kept),
        tokens_before=source.frame.vocabulary,
        prompts=len(respelled(source.frame, shipped.frame, spelled)),
        answers=sum(spelled.cuts(reply.answer) for reply in source.replies),
        lost=lost / len(places),
    )


def _overrun(shipped: Side) -> list[Fault]:
    """The runtime has an idea of its own of where an answer ends."""
    ends = set(shipped.frame.end_ids)
    over = sum(not ends.isdisjoint(reply.answer[:-1]) for reply in shipped.replies)
    message = f"{over} of {len(shipped.replies)} answers of what ships go on behind an end token"
    return [Fault("parity_end_tokens", message)] if over else []


def divergence_nats(source: Chances, shipped: Chances, outcomes: int) -> float:
    """KL(source, shipped) of the probabilities at one place.

    What a model leaves over of its likeliest, all others share evenly. So both are whole distributions, and what the
    one is sure of and the other does not even list makes them far apart.

    Args:
        outcomes: how many there are, listed or not.
    """
    ids = sorted({*source[0], *shipped[0]})
    p, q = (_whole(chances, ids, outcomes) for chances in (source, shipped))
    # Never below 0 but by rounding.
    return max(0.0, float((p * np.log(p / q)).sum()))


def _whole(chances: Chances, ids: Sequence[int], outcomes: int) -> Array:
    """Probabilities of `ids` and, last, of all others together, shape [ids + 1]."""
    given = dict(zip(chances[0], np.exp(np.array(chances[1])).tolist(), strict=True))
    left = max(0.0, 1 - math.fsum(given.values()))
    each = left / max(1, outcomes - len(given))
    listed = [given.get(id, each) for id in ids]
    whole = np.maximum([*listed, left - each * (len(ids) - len(given))], _LEAST)
    shares: Array = whole / whole.sum()
    return shares


class _Place(NamedTuple):
    """What both make of one place of an answer."""

    kl_nats: float
    same: bool


def _measured(task: Task, rows: Sequence[Row], source: Side, shipped: Side, seed: int) -> Measured:
    pairs = list(zip(source.replies, shipped.replies, strict=True))
    places = [_places(*pair, shipped) for pair in pairs]
    every = [place for row in places for place in row]
    first = [math.fsum(p.kl_nats for p in (row if source.frame.labels else row[:1])) for row in places]
    same = [_same(*pair, shipped.spelled) for pair in pairs]
    below = _below(task, rows, source.replies, shipped.replies, seed)
    return Measured(
        first_token_kl_nats=math.fsum(first) / len(first),
        token_kl_nats=math.fsum(place.kl_nats for place in every) / len(every),
        worst_kl_nats=max(place.kl_nats for place in every),
        agreement=sum(place.same for place in every) / len(every),
        same_answers=sum(same) / len(pairs),
        figure=headline(task).name,
        drop=below.value,
        drop_interval=(below.interval.low, below.interval.high),
        worst=_worst(rows, pairs, same, places),
    )


def _same(source: Reply, shipped: Reply, spelled: Spelling | None) -> bool:
    """Whether both are the same answer: the same tokens, or where one of them was left out, the same text."""
    if spelled is None:
        return source.answer == shipped.answer
    return spelled.of(source.answer) == shipped.answer or (spelled.cuts(source.answer) and source.text == shipped.text)


def _places(source: Reply, shipped: Reply, ours: Side) -> list[_Place]:
    """The places of an answer that count."""
    if ours.spelled:
        return _spelled_places(source, shipped, ours.spelled)
    pairs = list(zip(source.chances, shipped.chances, strict=True))
    if ours.frame.labels:
        # Most of a message is no part of its answer, and to agree on that is no merit.
        pairs = [pair for pair in pairs if any(ids[0] != OUTSIDE for ids, _ in pair)] or pairs
    return [_Place(divergence_nats(p, q, ours.frame.vocabulary), p[0][0] == q[0][0]) for p, q in pairs]


def _spelled_places(source: Reply, shipped: Reply, spelled: Spelling) -> list[_Place]:
    """A place for each token of the source's answer, which what ships was shown in its own spelling."""
    places, begin = list[_Place](), 0
    for token, chances in zip(source.answer, source.chances, strict=True):
        pieces = spelled.pieces[token]
        theirs, ours = _first_pieces(chances, spelled), shipped.chances[begin : begin + len(pieces)]
        likeliest = [ids[0] for ids, _ in ours]
        # Of what the source would rather say than its own answer the first piece is known alone.
        same = likeliest == pieces if chances[0][0] == token else likeliest[:1] == spelled.of(chances[0][:1])
        places.append(_Place(divergence_nats(theirs, ours[0], len(spelled.kept)), same))
        begin += len(pieces)
    return places


def _first_pieces(chances: Chances, spelled: Spelling) -> Chances:
    """Probabilities of the source's tokens as those of the pieces that they begin with."""
    found = dict[int, float]()
    for id, log_prob in zip(*chances, strict=True):
        if (first := spelled.first(id)) is not None:
            found[first] = float(np.logaddexp(found.get(first, -np.inf), log_prob))
    return list(found), list(found.values())


def _below(task: Task, rows: Sequence[Row], source: Sequence[Reply], shipped: Sequence[Reply], seed: int) -> Difference:
    """How far the main figure of what ships lies below the source's."""
    figure = headline(task)
    theirs, ours = (
        figure.table([task.judge(row["output"], task.parse(reply.text)) for row, reply in zip(rows, side, strict=True)])
        for side in (source, shipped)
    )
    return paired_bootstrap(theirs, ours, figure.of, seed=seed)


def _worst(
    rows: Sequence[Row],
    pairs: Sequence[tuple[Reply, Reply]],
    same: Sequence[bool],
    places: Sequence[Sequence[_Place]],
) -> tuple[Example, ...]:
    examples = [
        Example(
            id=str(row["id"]),
            token_kl_nats=math.fsum(place.kl_nats for place in at) / len(at),
            agreement=sum(place.same for place in at) / len(at),
            source=theirs.text,
            shipped=ours.text,
        )
        for row, (theirs, ours), alike, at in zip(rows, pairs, same, places, strict=True)
        if not (alike and all(place.same for place in at))
    ]
    return tuple(sorted(examples, key=lambda one: (one.agreement, -one.token_kl_nats))[:_WORST])
