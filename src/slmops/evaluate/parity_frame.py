"""What surrounds a model, for a check of parity: its prompts, what ends its answers, and the room for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Protocol, TypeVar

from slmops.engines import Engine, Sampling
from slmops.engines.tagging import TaggingEngine
from slmops.models.spelling import Spelling
from slmops.models.tokenizer import Tokenizer
from slmops.tasks import Row, Task

_DOES = ("writes answers", "labels messages")
_Item = TypeVar("_Item")


class Model(Protocol):
    """A model as it is asked: a bundle, or the `Subject` of a probe."""

    @property
    def engine(self) -> Engine: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def task(self) -> Task: ...
    @property
    def sampling(self) -> Sampling: ...


@dataclass(frozen=True)
class Frame:
    """What surrounds the answers of a model to some rows.

    Attributes:
        prompts: tokens of each request.
        texts: the same as text, control tokens included.
        end_ids: tokens that end an answer, in order.
        context_tokens: prompt and answer together.
        answer_tokens: of the longest answer.
        labels: whether it labels instead of writing.
        vocabulary: tokens that there are.
    """

    prompts: list[list[int]]
    texts: list[str]
    end_ids: list[int]
    context_tokens: int
    answer_tokens: int
    labels: bool
    vocabulary: int


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was: `what` names the gate it fails, `message` says where and how."""

    what: str
    message: str


def frame_of(model: Model, rows: Sequence[Row]) -> Frame:
    """The frame in which `model` answers `rows`."""
    prompts = [model.tokenizer.prompt(model.task.render(row["input"])) for row in rows]
    return Frame(
        prompts=prompts,
        texts=[model.tokenizer.backend.decode(prompt, skip_special_tokens=False) for prompt in prompts],
        end_ids=sorted(model.tokenizer.end_ids),
        context_tokens=model.engine.info().context_tokens,
        answer_tokens=model.sampling.max_tokens,
        labels=isinstance(model.engine, TaggingEngine),
        vocabulary=model.tokenizer.size,
    )


def in_tokens_of(source: Frame, spelled: Spelling) -> Frame:
    """The source's frame in the tokens of what ships; ends of answers that were left out are no tokens there."""
    ends = [end for end in source.end_ids if not spelled.cuts([end])]
    return replace(source, prompts=[spelled.of(each) for each in source.prompts], end_ids=sorted(spelled.of(ends)))


def respelled(source: Frame, shipped: Frame, spelled: Spelling) -> list[int]:
    """Numbers of the prompts of which a token was left out: the same text in smaller pieces."""
    pairs = enumerate(zip(source.texts, shipped.texts, strict=True))
    return [row for row, (theirs, ours) in pairs if theirs == ours and spelled.cuts(source.prompts[row])]


def differences(source: Frame, shipped: Frame, spelled: Spelling | None = None) -> list[Fault]:
    """Where the frame of what ships is not that of its source; more room is no fault.

    Args:
        spelled: the source's tokens in those of what ships, where its vocabulary was cut. A prompt that needs one that
            was left out has to be the same text.
    """
    apart = set(respelled(source, shipped, spelled)) if spelled else set[int]()
    if spelled:
        source = in_tokens_of(source, spelled)
    faults = []
    if source.labels != shipped.labels:
        faults.append(Fault("parity_head", f"the source {_DOES[source.labels]}, what ships {_DOES[shipped.labels]}"))
    pairs = enumerate(zip(source.prompts, shipped.prompts, strict=True))
    if other := [row for row, (theirs, ours) in pairs if theirs != ours and row not in apart]:
        count = f"{len(other)} of {len(source.prompts)} prompts are not the same tokens"
        faults.append(Fault("parity_prompts", f"{count}: {_parting(source, shipped, other[0])}"))
    if source.end_ids != shipped.end_ids:
        ends = f"the source's answers end at the tokens {source.end_ids}, those of what ships at {shipped.end_ids}"
        faults.append(Fault("parity_end_tokens", ends))
    for what, theirs, ours in (
        ("a prompt and its answer", source.context_tokens, shipped.context_tokens),
        ("an answer", source.answer_tokens, shipped.answer_tokens),
    ):
        if ours < theirs:
            faults.append(Fault("parity_context", f"{what} may have {theirs:,} tokens, and {ours:,} in what ships"))
    return faults


def _parting(source: Frame, shipped: Frame, row: int) -> str:
    """Where the prompts of a row part, as text, or as tokens where they are the same text."""
    theirs, ours = source.texts[row], shipped.texts[row]
    if theirs == ours:
        tokens = source.prompts[row], shipped.prompts[row]
        at = _first_difference(*tokens)
        return f"{tokens[0][at : at + 5]} became {tokens[1][at : at + 5]} at token {at} of {theirs[:80]!r}"
    at = _first_difference(theirs, ours)
    begin = max(0, at - 20)
    return f"{theirs[begin : at + 40]!r} became {ours[begin : at + 40]!r}"


def _first_difference(theirs: Sequence[_Item], ours: Sequence[_Item]) -> int:
    return next(i for i, (a, b) in enumerate(zip_longest(theirs, ours)) if a != b)
