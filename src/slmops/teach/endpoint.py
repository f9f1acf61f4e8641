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
from slmops.endpoints.money import Cost
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.privacy.redaction import Redaction, redactor_for, unchanged
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.teachers import EndpointTeacher
from slmops.tasks import Message, ParseFailure, Row, Task
from slmops.teach.answers import Answer
from slmops.teach.combine import elect
from slmops.teach.paying import tariff_of
from slmops.teach.thinking import UNFINISHED, spoken


def manner_of(teacher: EndpointTeacher, task: Task) -> Manner:
    """How the teacher is asked for answers of this task."""
    limit = longest(teacher, task)
    sampling: dict[str, Any] = {teacher.limit_answers_by: limit, "temperature": teacher.temperature}
    if teacher.top_p is not None:
        sampling["top_p"] = teacher.top_p
    return Manner(sampling, limit, teacher.concurrency, teacher.retries, teacher.timeout_s)


def longest(teacher: EndpointTeacher, task: Task) -> int:
    """Tokens of a reply at most: of the answer, and of what is thought before it."""
    return task.max_answer_tokens + teacher.thinking_tokens


@dataclass(frozen=True)
class Pool:
    """The rows as a teacher behind an endpoint is asked them, each `teacher.n` times. Equal questions have one key, and
    are asked once for each draw.

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
    def draws(self) -> list[list[str]]:
        """Of each row the keys of its draws."""
        draws = range(self.teacher.n)
        asked = (self.sent(row, of_row) for row, of_row in zip(self.rows, self.redactions, strict=True))
        return [[self.key(messages, draw) for draw in draws] for messages in asked]

    @property
    def keys(self) -> list[str]:
        """Of all draws of all rows."""
        return [one for draws in self.draws for one in draws]

    def key(self, messages: Sequence[Message], draw: int = 0) -> str:
        """A digest of all that shapes the answer: who is asked, what, and how it is to be drawn."""
        seed = self.seeded(draw)
        # What tells draws apart is their seed, or else their number.
        apart = {"draw": draw} if draw and not seed else {}
        return key(
            host=Endpoint(self.teacher.base_url, self.teacher.model).host,
            model=self.teacher.model,
            messages=messages,
            sampling={**manner_of(self.teacher, self.task).sampling, **seed},
            **apart,
        )

    def seeded(self, draw: int) -> dict[str, int]:
        """What a request has for its draw."""
        return {} if self.teacher.seed is None else {"seed": self.teacher.seed + draw}

    def questions(self, known: Iterable[str]) -> Iterator[Question]:
        """Those whose keys are not among the known ones, one of each."""
        seen = set(known)
        for keys, row, redaction in zip(self.draws, self.rows, self.redactions, strict=True):
            usable = partial(self.unusable, redaction=redaction)
            for draw, one in enumerate(keys):
                if one not in seen:
                    seen.add(one)
                    yield Question(one, self.sent(row, redaction), usable, self.seeded(draw))

    def texts(self, records: Mapping[str, Mapping[str, Any]], unknown: Sequence[str]) -> list[dict[str, str]]:
        """Of each draw what it says to the rows, by their id, where it can be used; of an unknown one `unknown`."""
        found: list[dict[str, str]] = [{} for _ in range(self.teacher.n)]
        for row, keys, redaction in zip(self.rows, self.draws, self.redactions, strict=True):
            for texts, one, nobody_knows in zip(found, keys, unknown, strict=True):
                record = records.get(one)
                if record is None:
                    texts[row["id"]] = nobody_knows
                elif self.unusable(record, redaction) is None:
                    texts[row["id"]] = redaction.restore(self.said(record)["text"]).text.strip()
        return found

    def told(self, records: Mapping[str, Mapping[str, Any]]) -> list[str | None]:
        """Why records, by key, cannot be learned from, each by the first row that asks it; None where it can."""
        first = {
            one: redaction
            for keys, redaction in zip(reversed(self.draws), reversed(self.redactions), strict=True)
            for one in keys
        }
        return [self.unusable(record, first[one]) for one, record in records.items()]

    def said(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a reply with the answer as its text; see `slmops.teach.thinking.spoken`."""
        return spoken(record, self.teacher.reasoning)

    def unusable(self, record: Mapping[str, Any], redaction: Redaction) -> str | None:
        """Why a reply cannot be learned from; see `unusable`."""
        return unusable(self.said(record), self.task, redaction, longest(self.teacher, self.task))


def keys_of(
    teachers: Iterable[EndpointTeacher], task: Task, rows: Sequence[Row], privacy: PrivacySettings
) -> list[str]:
    """Of all that the teachers would be asked of the rows."""
    return [one for teacher in teachers for one in Pool(teacher, task, rows, privacy).keys]


@dataclass(frozen=True)
class Forecast:
    """What is still to be asked, and what that costs at most.

    Attributes:
        rows: of the pool.
        questions: that are to be asked: no answer to them is known. Each draw of a row is one.
        most: with every prompt as long as its bytes, and every answer as long as it may be.
        paid: whether that is money: at the price, or for all that is known.
        writing: requests beside, which are in `most`: for rows that are to be written, and for solutions.
        user: who is asked some of these, playing the user in talks, where that is another one behind an endpoint.
    """

    teacher: EndpointTeacher
    rows: int
    questions: int
    most: Cost
    paid: bool
    writing: int = 0
    user: EndpointTeacher | None = None

    @property
    def priced(self) -> bool:
        """Whether the price of all that is asked is known."""
        return self.teacher.price is not None and (self.user is None or self.user.price is not None)

    def describe(self) -> dict[str, Any]:
        """As plain JSON; `max_usd` is null where a price is not known, `user` where nobody else is asked."""
        usd = self.most.usd if self.priced else None
        user = f"{self.user.model} at {_host(self.user)}" if self.user else None
        asked = {"rows": self.rows, "questions": self.questions, "writing": self.writing, "user": user}
        return {**asked, "max_tokens": self.most.tokens, "max_usd": usd}

    def __str__(self) -> str:
        beside = f"{self.writing:,} requests that write rows or solutions, " if self.writing else ""
        n = self.teacher.n
        asked = f"{self.rows:,} rows" if n == 1 else f"{self.rows * n:,} answers, {n} to a row,"
        user = f" and, as the user, {self.user.model} at {_host(self.user)}" if self.user else ""
        return (
            f"{self.teacher.model} at {_host(self.teacher)}{user}: {beside}{self.questions:,} of {asked} to ask, "
            f"{_at_most(self.most, priced=self.priced)}"
        )


@dataclass(frozen=True)
class Forecasts:
    """What is still to be asked of every teacher behind an endpoint, at least one, and what that costs at most."""

    each: Sequence[Forecast]

    @property
    def most(self) -> Cost:
        """Of all together."""
        return sum((one.most for one in self.each), Cost())

    @property
    def paid(self) -> bool:
        """Whether any of it is money."""
        return any(one.paid for one in self.each)

    def describe(self) -> dict[str, Any]:
        """As plain JSON: the sums, and of several teachers each by its name; `max_usd` is null where a price is not
        known.
        """
        told = [one.describe() for one in self.each]
        sums = {name: sum(one[name] for one in told) for name in ("questions", "writing", "max_tokens")}
        usd = [one["max_usd"] for one in told]
        whole = {"rows": max(one["rows"] for one in told), **sums, "max_usd": None if None in usd else self.most.usd}
        if len(told) == 1:
            return {**whole, "user": told[0]["user"]}
        return {**whole, "teachers": {one.teacher.name: of for one, of in zip(self.each, told, strict=True)}}

    def __str__(self) -> str:
        if len(self.each) == 1:
            return str(self.each[0])
        whole = _at_most(self.most, priced=all(one.priced for one in self.each))
        return "\n".join([*(f"{one.teacher.name}: {one}" for one in self.each), f"together: {whole}"])


def _at_most(most: Cost, *, priced: bool) -> str:
    return f"at most {most.tokens:,} tokens, " + (f"{most.usd:.2f} USD" if priced else "price unknown")


def _host(teacher: EndpointTeacher) -> str:
    return Endpoint(teacher.base_url, teacher.model).host


def forecast(
    pool: Pool,
    known: Iterable[str],
    beside: Cost | None = None,
    user: EndpointTeacher | None = None,
    *,
    at_most: int | None = None,
) -> Forecast:
    """What the questions whose keys are not known cost at most, by their lengths alone.

    Args:
        beside: what is to be asked before that, at most.
        user: see `Forecast`.
        at_most: rows that will be asked, which nobody knows yet: they count as the longest.
    """
    teacher, tariff = pool.teacher, tariff_of(pool.teacher)
    costs = [tariff.most(question.messages, longest(teacher, pool.task)) for question in pool.questions(known)]
    if at_most is not None:
        costs = sorted(costs, key=lambda cost: cost.tokens, reverse=True)[: at_most * teacher.n]
    beside = beside or Cost()
    most = sum(costs, beside)
    paid = is_paid(teacher, most) or (user is not None and is_paid(user, beside))
    return Forecast(teacher, len(pool.rows), len(costs), most, paid, beside.requests, user)


def is_paid(teacher: EndpointTeacher, most: Cost) -> bool:
    """Whether requests that cost so much at most are money, for all that is known."""
    # A server that wants no key and has no price is one's own.
    return bool(most.requests) and (most.pico > 0 or (teacher.price is None and teacher.key_env is not None))


def unusable(record: Mapping[str, Any], task: Task, redaction: Redaction, limit: int) -> str | None:
    """Why an answer cannot be learned from; None where it can.

    The reason says nothing of what stands behind a placeholder, since it goes into logs and reports.

    Args:
        record: of a reply, with the answer as its text.
        redaction: of the messages that were asked.
        limit: tokens of a reply at most.
    """
    if record["finish"] == "content_filter":
        return "the endpoint's filter stopped it"
    if record["finish"] == UNFINISHED:
        return f"it ends inside its thinking: {limit} tokens were too few; see teachers.N.thinking_tokens"
    if not record["text"].strip():
        return "the answer is empty"
    restored = redaction.restore(record["text"])
    if restored.invented:
        return f"{restored.invented[0]} stands for nothing that was taken out of the row"
    cut = f"cut off at {limit} tokens: " if record["finish"] == "length" else ""
    if cut and redaction.ends_within(record["text"]):
        return f"{cut}in the middle of a placeholder"
    if not isinstance(task.parse(restored.text), ParseFailure):
        return None
    parsed = task.parse(record["text"])
    return cut + (parsed.reason if isinstance(parsed, ParseFailure) else _ONLY_WITH_VALUES)


_ONLY_WITH_VALUES = "it has not the form of the task once the values are back in the place of their placeholders"


@dataclass(frozen=True)
class Parted:
    """What came of a pool.

    Attributes:
        answers: that can be learned from, in the order of the rows.
        draws: of each draw its answers to those rows, where they can be used.
        dropped: the other rows with the reason.
    """

    answers: list[Answer]
    draws: list[list[Answer]]
    dropped: list[Row]


def parted(
    pool: Pool, records: Mapping[str, Mapping[str, Any]], set_aside: Mapping[str, str], tokenizer: Tokenizer
) -> Parted:
    """The answers that can be learned from: of a row's draws the one that most of them give (the self-consistency of
    Wang et al. 2023), and of equally many the first.

    Answers have values where placeholders stood, as the rows themselves; texts of the other rows keep placeholders.

    Args:
        records: of replies, by the keys of the questions.
        set_aside: why the other questions have none.

    Raises:
        SlmopsError: no answer can be used.
    """
    found = Parted([], [[] for _ in range(pool.teacher.n)], [])
    for keys, row, redaction in zip(pool.draws, pool.rows, pool.redactions, strict=True):
        told = [_told(pool, row, records.get(one), redaction, set_aside.get(one), tokenizer) for one in keys]
        answers = [one if isinstance(one, Answer) else None for one in told]
        elected = elect(answers, [1.0] * len(answers), pool.task)
        # Where no draw can be used, the first says why.
        chosen = told[elected or 0]
        if isinstance(chosen, Answer) and (reason := written_for_another(row, chosen.text, pool.task)):
            chosen = {"id": row["id"], "text": pool.said(records[keys[elected or 0]])["text"], "reason": reason}
        if not isinstance(chosen, Answer):
            found.dropped.append(chosen)
            continue
        found.answers.append(chosen)
        for draw, answer in zip(found.draws, answers, strict=True):
            draw += [answer] if answer else []
    if not found.answers:
        raise none_usable([said(row, row["reason"]) for row in found.dropped])
    return found


def _told(
    pool: Pool,
    row: Row,
    record: Mapping[str, Any] | None,
    redaction: Redaction,
    set_aside: str | None,
    tokenizer: Tokenizer,
) -> Answer | Row:
    """One draw's answer, or the row with the reason that there is none."""
    if record is None:
        return {"id": row["id"], "text": "", "reason": set_aside}
    told = pool.said(record)
    if reason := pool.unusable(record, redaction):
        return {"id": row["id"], "text": told["text"], "reason": reason}
    return answer_of(row, {**told, "text": redaction.restore(told["text"]).text}, tokenizer)


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
