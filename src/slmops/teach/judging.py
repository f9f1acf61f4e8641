"""The best of several answers to a row, by a teacher that judges and does not answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slmops.tasks import Message, Row, Task
from slmops.teach.asking import Asker, Request, Said
from slmops.teach.combine import alike

MAX_TOKENS = 16
"""Of a judge's reply, which is a number."""

_ORDER = (
    "Which of the numbered answers to this request is the best? Weigh whether it is right, whether it keeps to what is "
    "asked, and whether it leaves out what nobody asked for. Neither length nor the order in which they stand counts."
)
_END = "Reply with the number of the best answer and nothing else."

_NUMBER = re.compile(r"\d+")


@dataclass
class Judged:
    """What came of judging.

    Attributes:
        chosen: the position of the voter whose words are learned, by the row's id.
        unreadable: rows of which the judge did not say which answer is the best, with the reason.
        asked: rows on which it was asked: all candidates of the others say the same.
    """

    chosen: dict[str, int] = field(default_factory=dict)
    unreadable: list[Row] = field(default_factory=list)
    asked: int = 0


@dataclass(frozen=True)
class Case:
    """A row on which the judge is asked.

    Attributes:
        candidates: positions of voters, one of each distinct answer, in the order in which they are shown.
    """

    id: str
    candidates: Sequence[int]
    request: Request


def cases(
    task: Task, rows: Sequence[Row], draws: Sequence[Mapping[str, str]], *, system: str | None, seed: int
) -> tuple[list[Case], dict[str, int]]:
    """The rows on which a judge is to be asked; and of those whose answers all say the same, who says it.

    Judges favour places (Zheng et al. 2023, section 3.3), so the order is drawn for each row, by a digest of seed, row
    and answer. Rows that nobody answered are in neither.

    Args:
        draws: of each voter its texts, by the row's id.
        system: what the judge is told besides, as a system message.
    """
    found, agreed = [], {}
    for row in rows:
        texts = [said.get(row["id"]) for said in draws]
        groups = alike(texts, task)
        if len(groups) == 1:
            agreed[row["id"]] = groups[0][0]
        elif groups:
            shown = sorted((group[0] for group in groups), key=lambda i: _drawn(seed, row["id"], texts[i] or ""))
            messages = _messages(task, row, [texts[i] or "" for i in shown], system)
            found.append(Case(row["id"], shown, Request(messages, MAX_TOKENS)))
    return found, agreed


def decide(asker: Asker, asked: Sequence[Case], agreed: Mapping[str, int]) -> Judged:
    """Ask the judge.

    Raises:
        SlmopsError: it cannot be asked on, or none of its first replies can be read; see `Asker.ask`.
    """
    judged = Judged(chosen=dict(agreed), asked=len(asked))
    # What is readable depends on how many there are to choose from; of a number beyond that the row is dropped below.
    replies = asker.ask([case.request for case in asked], "the judge chooses answers", _unreadable)
    for case, reply in zip(asked, replies, strict=True):
        number = read_number(reply.text) if reply else None
        if number is not None and 1 <= number <= len(case.candidates):
            judged.chosen[case.id] = case.candidates[number - 1]
        else:
            said = "did not reply" if reply is None else f"named none of the {len(case.candidates)} answers"
            judged.unreadable.append({"id": case.id, "text": "", "reason": f"the judge {said}"})
    return judged


def read_number(text: str) -> int | None:
    """The one number in the first line of a reply; None where there is none, or several."""
    first, *_ = text.strip().splitlines() or [""]
    numbers = {int(digits) for digits in _NUMBER.findall(first)}
    return numbers.pop() if len(numbers) == 1 else None


def _unreadable(reply: Said) -> str | None:
    return "no number of an answer" if read_number(reply.text) is None else None


def _messages(task: Task, row: Row, texts: Sequence[str], system: str | None) -> list[Message]:
    asked = "\n\n".join(f"{message['role']}:\n{message['content']}" for message in task.render(row["input"]))
    answers = [f"Answer {number}:\n{text}" for number, text in enumerate(texts, 1)]
    content = "\n\n".join([_ORDER, f"The request:\n\n{asked}", *answers, _END])
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": content}]


def _drawn(seed: int, id: str, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{id}:{text}".encode(), digest_size=8).digest()
