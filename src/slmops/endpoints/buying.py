"""Asking an endpoint many questions, each until it is decided, without ever spending more than is allowed."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slmops.endpoints.batches import check_none_open
from slmops.endpoints.client import Client, Endpoint, Failure, Nonsense, Reply
from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Cost, Tariff
from slmops.endpoints.pace import Pace, Turns
from slmops.endpoints.retry import pause_s
from slmops.errors import BadInput, BudgetReached, SlmopsError
from slmops.privacy.audit import Gate
from slmops.progress import Task
from slmops.recipe.teaching import Budget

_DEAD = 3
"""Questions given up in a row, while nothing was answered, after which an endpoint is taken for dead."""

_MORE_WHEN_BUSY = 3
"""Further tries after 429: limits are often per minute, and pauses have come to half of one by then."""

_SHOWN = 3

MEND = "mend the request: teachers.N.system says what an answer must look like; no more is bought before that"


Usable = Callable[[Mapping[str, Any]], str | None]
"""Why the record of a reply cannot be used; None where it can."""


@dataclass(frozen=True)
class Question:
    """What is asked, under the key of its answer.

    Attributes:
        messages: as they leave.
        usable: where what can be used depends on the question, in place of what is the same for all.
        sampling: members of its request beside those of every other.
    """

    key: str
    messages: Sequence[Mapping[str, str]]
    usable: Usable | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manner:
    """How an endpoint is asked.

    Attributes:
        sampling: members of every request beside model and messages.
        max_tokens: of an answer.
        unusable: questions after which it is given up when none of them came to an answer that can be used.
        mend: what to do then.
    """

    sampling: Mapping[str, Any]
    max_tokens: int
    concurrency: int
    retries: int
    timeout_s: float
    unusable: int = 20
    mend: str = MEND


def record_of(reply: Reply) -> dict[str, Any]:
    """What is kept of a completion."""
    counts = {"prompt_tokens": reply.prompt_tokens, "tokens": reply.completion_tokens, "cached": reply.cached_tokens}
    thought = {"reasoning": reply.reasoning} if reply.reasoning else {}
    return {"text": reply.text, "finish": reply.finish, **counts, **thought}


def buy(
    endpoint: Endpoint,
    questions: Iterable[Question],
    manner: Manner,
    tariff: Tariff,
    ledger: Ledger,
    usable: Usable,
    bar: Task,
    *,
    any_usable: bool = False,
    gate: Gate | None = None,
) -> dict[str, str]:
    """Ask every question until its answer is in the ledger, or it is known to have none.

    The first is asked alone, so that a wrong key or address is told by one request. A question of its own that the
    endpoint refuses, or fails at again and again while others are answered, is set aside.

    Args:
        questions: none twice, and none that the ledger has an answer to.
        any_usable: a usable answer is known already.
        gate: see `Client`.

    Returns:
        Of each question that was set aside, by its key, the reason.

    Raises:
        BudgetReached: the budget allows no other request.
        BadInput: the endpoint refuses the key or the model.
        SlmopsError: it does not answer any more, none of its answers can be used, or it charges more than was allowed.
            Nothing new is asked then; what was under way is waited for and kept. Or a question is in an open batch.
    """
    check_none_open(ledger)
    # What is there already would be looked through for garbage again, with every request waiting meanwhile.
    gc.freeze()
    try:
        return asyncio.run(_buy(endpoint, iter(questions), manner, tariff, ledger, usable, bar, any_usable, gate))
    finally:
        gc.unfreeze()


async def _buy(
    endpoint: Endpoint,
    questions: Iterator[Question],
    manner: Manner,
    tariff: Tariff,
    ledger: Ledger,
    usable: Usable,
    bar: Task,
    any_usable: bool,
    gate: Gate | None,
) -> dict[str, str]:
    async with Client(endpoint, timeout_s=manner.timeout_s, connections=manner.concurrency, gate=gate) as client:
        buying = _Buying(client, manner, tariff, ledger, usable, bar, any_usable)
        for first in questions:
            await buying.work(iter([first]))
            break
        workers = []
        for _ in range(manner.concurrency):
            workers.append(asyncio.ensure_future(buying.work(questions)))
            # All at once they would open their connections in lockstep, and the first request leave with the last.
            await asyncio.sleep(0)
        await asyncio.gather(*workers)
    if buying.problem:
        raise buying.problem
    return buying.set_aside


class _Buying:
    """The state that the requests under way share."""

    def __init__(
        self,
        client: Client,
        manner: Manner,
        tariff: Tariff,
        ledger: Ledger,
        usable: Usable,
        bar: Task,
        any_usable: bool,
    ) -> None:
        self.client, self.manner, self.tariff, self.ledger = client, manner, tariff, ledger
        self.usable, self.bar, self.any_usable = usable, bar, any_usable
        self.set_aside: dict[str, str] = {}
        self.problem: SlmopsError | None = None
        self._stopped, self._settled = asyncio.Event(), asyncio.Event()
        self._turns = Turns(Pace(manner.concurrency))
        self._answered = self._given_up = 0
        self._unusable: list[str] = []

    async def work(self, questions: Iterator[Question]) -> None:
        """Ask one question after the other until there are none, or something stops all."""
        for question in questions:
            if self.problem:
                return
            try:
                await self._decide(question)
            except SlmopsError as problem:
                self.problem = self.problem or problem
                self._stopped.set()
                return

    async def _decide(self, question: Question) -> None:
        tries, answered = 0, self._answered
        while failure := await self._once(question):
            if failure.of_the_request:
                return self._put_aside(question, failure)
            if not failure.retryable:
                raise BadInput(self._said(failure), hint=failure.hint)
            if failure.busy and self._answered > answered:
                # It answers others, so this one's turn comes: too many requests are no fault of the question's.
                tries, answered = 0, self._answered
            tries += 1
            if tries > self.manner.retries + (_MORE_WHEN_BUSY if failure.busy else 0):
                return self._give_up(question, failure, alone=self._answered == answered)
            await self._pause(pause_s(tries, failure))
        return None

    async def _once(self, question: Question) -> Failure | None:
        """Send one request and write down what became of it; what went wrong, or None for an answer."""
        most = self.tariff.most(question.messages, self.manner.max_tokens)
        async with self._turns.turn():
            await self._room_for(most)
            number = self.ledger.reserve(question.key, most)
            await self.ledger.written()
            sent = time.monotonic()
            try:
                reply = await self.client.complete(
                    question.messages,
                    idempotency_key=self.ledger.idempotency_key(question.key),
                    **self.manner.sampling,
                    **question.sampling,
                )
            except Failure as failure:
                cost = most if failure.charged else Cost(requests=1)
                self.ledger.settle(number, question.key, most, cost, spoiled=isinstance(failure, Nonsense))
                if failure.busy:
                    self._turns.pace.busy(sent, time.monotonic())
                return failure
            except SlmopsError:
                # It was not sent, so it costs nothing.
                self.ledger.settle(number, question.key, most, Cost())
                raise
            else:
                self._turns.pace.answered(reply.latency_s)
                await self._keep(question, number, most, reply)
                return None
            finally:
                self._settled.set()

    async def _room_for(self, most: Cost) -> None:
        """Wait until the budget has room for another request: those under way mostly cost less than they might.

        Raises:
            BudgetReached: it will have none.
        """
        while True:
            if self.problem:
                raise self.problem
            check_time(self.ledger)
            if self.ledger.fits(most):
                return
            if not self.ledger.under_way:
                raise no_room(self.ledger)
            self._settled.clear()
            await self._settled.wait()

    async def _keep(self, question: Question, number: int, most: Cost, reply: Reply) -> None:
        cost, record = self.tariff.of_reply(reply) or most, record_of(reply)
        self.ledger.settle(number, question.key, most, cost, answer=record)
        await self.ledger.written()
        self._answered += 1
        self._given_up = 0
        self.bar.advance(1, usd=self.ledger.spent.usd)
        check_cost(self.ledger.budget, cost, most, self.client.endpoint.host)
        if not self.any_usable:
            reason = (question.usable or self.usable)(record)
            self.any_usable = reason is None
            self._came_to_nothing(f"{record['text'][:120]!r}: {reason}")

    def _came_to_nothing(self, example: str) -> None:
        """Stop before a whole pool is asked of which nothing can be used.

        Raises:
            SlmopsError: so it looks.
        """
        if self.any_usable:
            return
        self._unusable.append(example)
        if len(self._unusable) >= self.manner.unusable:
            raise none_usable(self._unusable, self.manner.mend)

    def _put_aside(self, question: Question, failure: Failure) -> None:
        self.set_aside[question.key] = self._said(failure)
        self.bar.advance(1)
        self._came_to_nothing(self._said(failure))

    def _give_up(self, question: Question, failure: Failure, *, alone: bool) -> None:
        """Set a question aside that fails while others are answered; when none are, it is the endpoint that fails."""
        self._given_up += alone
        if alone and (failure.busy or self._given_up >= _DEAD):
            raise SlmopsError(self._said(failure), hint=f"{failure.hint}; the same command goes on from there")
        self._put_aside(question, failure)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when all is over.

        Raises:
            SlmopsError: it is.
        """
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return
        if self.problem:
            raise self.problem

    def _said(self, failure: Failure) -> str:
        return f"{self.client.endpoint.model} at {self.client.endpoint.host} {failure}"


def check_time(ledger: Ledger) -> None:
    """Raises:
    BudgetReached: the minutes of the budget are over.
    """
    minutes = ledger.budget.minutes
    if minutes is not None and time.monotonic() > ledger.opened + 60 * minutes:
        raise BudgetReached(
            f"teach.budget.minutes {minutes:g} are over",
            hint="the same command goes on: every answer so far is kept and not bought again",
        )


def no_room(ledger: Ledger) -> BudgetReached:
    """Nothing is under way, and nothing else may be asked."""
    return BudgetReached(
        f"the budget has no room for another request: teach.budget.{ledger.told()}",
        hint="raise it and give the same command: every answer so far is kept and not bought again",
    )


def check_cost(budget: Budget, cost: Cost, most: Cost, host: str) -> None:
    """Stop at a server that counts more for a request than was reserved for it.

    Raises:
        SlmopsError: it does, and there is a budget that it would break.
    """
    if (budget.usd and cost.pico > most.pico) or (budget.tokens and cost.tokens > most.tokens):
        raise SlmopsError(
            f"{host} counts {cost.tokens} tokens for a request that may have {most.tokens}: "
            "no budget can be kept with it",
            hint="see whether it heeds teachers.N.limit_answers_by, or take teach.budget out",
        )


def none_usable(examples: Sequence[str], mend: str = MEND) -> SlmopsError:
    """Nothing of what was bought can be used; `examples` are texts with reasons."""
    shown = "\n".join(f"  {example}" for example in examples[:_SHOWN])
    return SlmopsError(f"none of the first {len(examples)} answers can be used; such as\n{shown}", hint=mend)
