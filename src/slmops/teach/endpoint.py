"""The pool as questions to an endpoint, and what it said as answers in the student's tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from slmops.endpoints.answers import key
from slmops.endpoints.buying import Manner, Question, none_usable
from slmops.endpoints.client import Endpoint
from slmops.endpoints.money import Cost, Tariff
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.privacy.redaction import Redaction, redactor_for, unchanged
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.training import EndpointTeacher
from slmops.tasks import Message, ParseFailure, Row, Task
from slmops.teach.answers import Answer


def manner_of(teacher: EndpointTeacher, task: Task) -> Manner:
    """How the teacher is asked for answers of this task."""
    sampling: dict[str, Any] = {
        teacher.limit_answers_by: task.max_answer_tokens,
        "temperature": teacher.temperature,
    }
    if teacher.top_p is not None:
        sampling["top_p"] = teacher.top_p
    return Manner(sampling, task.max_answer_tokens, teacher.concurrency, teacher.retries, teacher.timeout_s)


@dataclass(frozen=True)
class Pool:
    """The rows as a teacher behind an endpoint is asked them. Equal questions have one key, and are asked once.

    They are asked without what `privacy` takes out of them, so rows that differ in that alone are one question, and
    its answer is told with the values of each.
    """

    teacher: EndpointTeacher
    task: Task
    rows: Sequence[Row]
    privacy: PrivacySettings = field(default_factory=PrivacySettings)

    def messages(self, row: Row) -> list[Message]:
        """As they are meant; what leaves is `sent`."""
        system = [{"role": "system", "content": self.teacher.system}] if self.teacher.system else []
        return [*system, *self.task.render(row["input"])]

    @cached_property
    def redactions(self) -> list[Redaction]:
        """Of the messages of each row, in the order of the rows.

        Raises:
            BadInput: see `redactor`.
        """
        finder = redactor_for(self.teacher.base_url, self.privacy)
        texts = ([message["content"] for message in self.messages(row)] for row in self.rows)
        return [finder.redact(of_row) if finder else unchanged(of_row) for of_row in texts]

    def sent(self, row: Row, redaction: Redaction) -> list[Message]:
        """The messages of a row as they leave."""
        return redaction.messages(self.messages(row))

    @cached_property
    def keys(self) -> list[str]:
        """Of the rows, in their order."""
        return [self.key(self.sent(row, of_row)) for row, of_row in zip(self.rows, self.redactions, strict=True)]

    def key(self, messages: Sequence[Message]) -> str:
        """A digest of all that shapes the answer: who is asked, what, and how it is to be drawn."""
        return key(
            host=Endpoint(self.teacher.base_url, self.teacher.model).host,
            model=self.teacher.model,
            messages=messages,
            sampling=manner_of(self.teacher, self.task).sampling,
        )

    def questions(self, known: Iterable[str]) -> Iterator[Question]:
        """Those whose keys are not among the known ones, one of each."""
        seen = set(known)
        for one, row, redaction in zip(self.keys, self.rows, self.redactions, strict=True):
            if one not in seen:
                seen.add(one)
                yield Question(one, self.sent(row, redaction), partial(unusable, task=self.task, redaction=redaction))

    def told(self, records: Mapping[str, Mapping[str, Any]]) -> list[str | None]:
        """Why records, by key, cannot be learned from, each by the first row that asks it; None where it can."""
        first = dict(zip(reversed(self.keys), reversed(self.redactions), strict=True))
        return [unusable(record, self.task, first[one]) for one, record in records.items()]


@dataclass(frozen=True)
class Forecast:
    """What is still to be asked, and what that costs at most.

    Attributes:
        rows: of the pool.
        questions: that are to be asked: no answer to them is known.
        most: with every prompt as long as its bytes, and every answer as long as it may be.
        paid: whether that is money: at the price, or for all that is known.
        writing: requests beside, which are in `most`: for rows that are to be written, and for solutions.
    """

    teacher: EndpointTeacher
    rows: int
    questions: int
    most: Cost
    paid: bool
    writing: int = 0

    def describe(self) -> dict[str, Any]:
        """As plain JSON; `max_usd` is null where no price is known."""
        usd = None if self.teacher.price is None else self.most.usd
        asked = {"rows": self.rows, "questions": self.questions, "writing": self.writing}
        return {**asked, "max_tokens": self.most.tokens, "max_usd": usd}

    def __str__(self) -> str:
        teacher, most = self.teacher, self.most
        host = Endpoint(teacher.base_url, teacher.model).host
        money = "price unknown" if teacher.price is None else f"{most.usd:.2f} USD"
        beside = f"{self.writing:,} requests that write rows or solutions, " if self.writing else ""
        return (
            f"{teacher.model} at {host}: {beside}{self.questions:,} of {self.rows:,} rows to ask, at most "
            f"{most.tokens:,} tokens, {money}"
        )


def forecast(pool: Pool, known: Iterable[str], beside: Cost | None = None, *, at_most: int | None = None) -> Forecast:
    """What the questions whose keys are not known cost at most, by their lengths alone.

    Args:
        beside: what is to be asked before that, at most.
        at_most: of them that will be asked, which nobody knows yet: they count as the longest.
    """
    teacher, tariff = pool.teacher, Tariff.of(pool.teacher.price)
    costs = [tariff.most(question.messages, pool.task.max_answer_tokens) for question in pool.questions(known)]
    if at_most is not None:
        costs = sorted(costs, key=lambda cost: cost.tokens, reverse=True)[:at_most]
    beside, questions = beside or Cost(), len(costs)
    most = sum(costs, beside)
    # A server that wants no key and has no price is one's own.
    paid = bool(most.requests) and (most.pico > 0 or (teacher.price is None and teacher.key_env is not None))
    return Forecast(teacher, len(pool.rows), questions, most, paid, writing=beside.requests)


def unusable(record: Mapping[str, Any], task: Task, redaction: Redaction) -> str | None:
    """Why an answer cannot be learned from; None where it can.

    The reason says nothing of what stands behind a placeholder, since it goes into logs and reports.

    Args:
        redaction: of the messages that were asked.
    """
    if record["finish"] == "content_filter":
        return "the endpoint's filter stopped it"
    if not record["text"].strip():
        return "the answer is empty"
    restored = redaction.restore(record["text"])
    if restored.invented:
        return f"{restored.invented[0]} stands for nothing that was taken out of the row"
    cut = f"cut off at {task.max_answer_tokens} tokens: " if record["finish"] == "length" else ""
    if cut and redaction.ends_within(record["text"]):
        return f"{cut}in the middle of a placeholder"
    if not isinstance(task.parse(restored.text), ParseFailure):
        return None
    parsed = task.parse(record["text"])
    return cut + (parsed.reason if isinstance(parsed, ParseFailure) else _ONLY_WITH_VALUES)


_ONLY_WITH_VALUES = "it has not the form of the task once the values are back in the place of their placeholders"


def parted(
    pool: Pool, records: Mapping[str, Mapping[str, Any]], set_aside: Mapping[str, str], tokenizer: Tokenizer
) -> tuple[list[Answer], list[Row]]:
    """The answers that can be learned from, in the order of the rows; and the other rows with the reason.

    Answers have values where placeholders stood, as the rows themselves; texts of the other rows keep placeholders.

    Args:
        records: of replies, by the keys of the questions.
        set_aside: why the other questions have none.

    Raises:
        SlmopsError: no answer can be used.
    """
    answers, dropped = [], []
    for asked, row, redaction in zip(pool.keys, pool.rows, pool.redactions, strict=True):
        record = records.get(asked)
        if record is None:
            dropped.append({"id": row["id"], "text": "", "reason": set_aside[asked]})
            continue
        told = {**record, "text": redaction.restore(record["text"]).text}
        reason = unusable(record, pool.task, redaction) or written_for_another(row, told["text"], pool.task)
        if reason:
            dropped.append({"id": row["id"], "text": record["text"], "reason": reason})
        else:
            answers.append(answer_of(row, told, tokenizer))
    if not answers:
        raise none_usable([said(row, row["reason"]) for row in dropped])
    return answers, dropped


def written_for_another(row: Row, text: str, task: Task) -> str | None:
    """Why an answer to a row that was written for a label is not learned: it gives another one.

    Of the two that the teacher said about one text, at least one is wrong; which, nobody knows.
    """
    wanted = row.get("wanted")
    if wanted is None or (label := task.label(task.parse(text))) == wanted:
        return None
    return f"written for the label {wanted}, answered with {label}"


def said(record: Mapping[str, Any], reason: str | None) -> str:
    """An answer beside the reason that it cannot be used."""
    return f"{record['text'][:120]!r}: {reason}"


def answer_of(row: Row, record: Mapping[str, Any], tokenizer: Tokenizer) -> Answer:
    """An endpoint's words in the tokens of the model that learns them, without probabilities.

    One that was cut off has no end token, as a local teacher's.
    """
    text = record["text"].strip()
    tokens = tokenizer.encode(text)
    if record["finish"] != "length":
        tokens.append(end_of_answer(tokenizer))
    nothing = np.zeros((len(tokens), 0))
    return Answer(
        id=row["id"],
        input=row["input"],
        text=text,
        tokens=np.array(tokens, dtype=np.int64),
        top_ids=nothing.astype(np.int32),
        top_log_probs=nothing.astype(np.float32),
    )
