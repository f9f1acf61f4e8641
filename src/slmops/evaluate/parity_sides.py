"""One model's part in a check of parity: what it makes of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slmops.engines import Engine, Sampling
from slmops.engines.base import Prompts, Top
from slmops.engines.tagging import TaggingEngine
from slmops.evaluate.parity_frame import Frame, Model, differences, frame_of
from slmops.models.spelling import Spelling
from slmops.tasks import Row

TOP = 32
"""Tokens whose probabilities are looked at at a place."""

Chances = tuple[list[int], list[float]]
"""Ids and log-probabilities of what is likeliest at a place."""


@dataclass(frozen=True)
class Reply:
    """What a model makes of one row.

    Attributes:
        answer: tokens of its answer, the end token included.
        text: that answer.
        chances: what is likeliest to it at each place of the source's answer, shown all of that which stands before;
            of a model that labels, the labels at each place that it reads.
    """

    answer: list[int]
    text: str
    chances: list[Chances]


@dataclass(frozen=True)
class Side:
    """A model's part; of what ships without replies where its frame is not the source's.

    Attributes:
        ran: engine and precision, for people.
        spelled: of what ships with a cut vocabulary, the source's tokens in its own. Chances are then at each place of
            the source's answer as that is spelled.
    """

    frame: Frame
    replies: list[Reply]
    ran: str
    spelled: Spelling | None = None

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Side:
        """What `asdict` made of it, as it comes back from JSON."""
        replies = [
            Reply(**reply | {"chances": [(ids, logs) for ids, logs in reply["chances"]]}) for reply in plain["replies"]
        ]
        spelled = Spelling(**plain["spelled"]) if plain["spelled"] else None
        return cls(Frame(**plain["frame"]), replies, plain["ran"], spelled)


def source_side(model: Model, rows: Sequence[Row], written: Prompts | None = None) -> Side:
    """The source's part.

    Args:
        written: tokens of its answers, where they are known; without them it writes them here.
    """
    frame, engine = frame_of(model, rows), model.engine
    if written is None:
        answers = [[id for id, _ in tokens] for tokens in _generated(engine, frame.prompts, model.sampling)]
    else:
        answers = [list(answer) for answer in written]
    return _side(model, frame, answers, _likeliest(engine, frame.prompts, answers))


def shipped_side(model: Model, rows: Sequence[Row], source: Side, spelled: Spelling | None = None) -> Side:
    """The part of what ships. It answers only in the source's own frame: prompts that differ say enough.

    Args:
        spelled: the source's tokens in its own, where its vocabulary was cut.
    """
    frame, engine = frame_of(model, rows), model.engine
    if differences(source.frame, frame, spelled):
        return _side(model, frame, [], [], spelled)
    generated = _generated(engine, frame.prompts, model.sampling)
    answers = [[id for id, _ in tokens] for tokens in generated]
    wanted = [spelled.of(reply.answer) if spelled else reply.answer for reply in source.replies]
    # Where both write the same, what was likeliest while it wrote is what is asked for.
    chances = [[likely for _, likely in tokens] for tokens in generated]
    apart = [i for i in range(len(rows)) if answers[i] != wanted[i] or frame.labels]
    forced = _likeliest(engine, [frame.prompts[i] for i in apart], [wanted[i] for i in apart])
    for i, likely in zip(apart, forced, strict=True):
        chances[i] = likely
    return _side(model, frame, answers, chances, spelled)


def _generated(engine: Engine, prompts: Prompts, sampling: Sampling) -> list[list[tuple[int, Chances]]]:
    """The tokens of each answer, each with what was likeliest in its place."""
    answers: list[list[tuple[int, Chances]]] = [[] for _ in prompts]
    for token in engine.generate(prompts, sampling, top_logits=TOP):
        if token.top is not None:
            answers[token.request].append((token.id, _plain(token.top)))
    return answers


def _likeliest(engine: Engine, prompts: Prompts, answers: Prompts) -> list[list[Chances]]:
    """At each place of given answers; of a model that labels, at each place that it reads."""
    if isinstance(engine, TaggingEngine):
        return [[_plain(place) for place in places] for places in engine.labels(prompts)]
    tops = engine.score_top(prompts, answers, top_logits=TOP)
    return [list(zip(ids.tolist(), log_probs.tolist(), strict=True)) for ids, log_probs in tops]


def _side(
    model: Model,
    frame: Frame,
    answers: Sequence[list[int]],
    chances: Sequence[list[Chances]],
    spelled: Spelling | None = None,
) -> Side:
    info = model.engine.info()
    replies = [
        Reply(answer, model.tokenizer.decode(answer), likely) for answer, likely in zip(answers, chances, strict=True)
    ]
    return Side(frame, replies, f"{info.engine}, {info.precision}", spelled)


def _plain(top: Top) -> Chances:
    ids, log_probs = top
    return ids.tolist(), log_probs.tolist()
