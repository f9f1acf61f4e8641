"""Asking an endpoint many questions in batches: write, hand in, look, collect. As `buying`, for less money and later.

The worst cost of a whole batch is written down before its file leaves, so no cap is passed; what was handed in is known
behind a kill, so none is handed in twice (see `batches`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from slmops.endpoints import batch_api
from slmops.endpoints.batches import Batch, Batches, End
from slmops.endpoints.buying import (
    Manner,
    Question,
    Usable,
    check_cost,
    check_time,
    no_room,
    none_usable,
    record_of,
)
from slmops.endpoints.client import Client, Endpoint, Failure, Reply
from slmops.endpoints.ledger import Ledger
from slmops.endpoints.money import Cost, Tariff
from slmops.endpoints.outcomes import Outcome, answers, outcomes
from slmops.endpoints.retry import pause_s
from slmops.errors import BadInput, Interrupted, SlmopsError
from slmops.privacy.audit import Gate
from slmops.progress import Task
from slmops.recipe.teachers import Batching

T = TypeVar("T")

_CONNECTIONS = 2

_LOOKS = 60
"""Further tries to see how far a batch is: pauses come to a minute each, and a provider may be away for an hour."""


def buy_batches(
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
    how: Batching,
) -> dict[str, str]:
    """Ask every question until its answer is in the ledger, or it is known to have none.

    Batches of the ledger's questions that are under way are collected first. As many others are handed in as the budget
    has room for; while no answer is known that can be used, a small one alone. A request that expired, failed or has no
    result is asked anew in a further batch, `manner.retries` times.

    Args:
        questions, usable, any_usable, gate: see `slmops.endpoints.buying.buy`.
        tariff: of what is asked in batches.

    Returns:
        Of each question that was set aside, by its key, the reason.

    Raises:
        BudgetReached: the budget allows no other batch, or its time is over; what was handed in goes on.
        BadInput: the endpoint refuses the key or the model, or has no batches.
        Interrupted: the user stopped it; what was handed in goes on.
        SlmopsError: it does not answer any more, refuses or has cancelled a batch, none of its answers can be used, or
            it charges more than was allowed. What a batch that has ended brought is kept.
    """
    asking = _Asking(endpoint, questions, manner, tariff, ledger, usable, bar, any_usable, how)
    try:
        return asyncio.run(asking.ask(gate))
    except KeyboardInterrupt:
        if not asking.open:
            raise
        names = ", ".join(batch.name or "" for batch in asking.open)
        raise Interrupted(
            f"interrupted; at {endpoint.host} the batch {names} goes on", hint="the same command collects it"
        ) from None


class _Asking:
    """Questions that wait, and batches that are open."""

    def __init__(
        self,
        endpoint: Endpoint,
        questions: Iterable[Question],
        manner: Manner,
        tariff: Tariff,
        ledger: Ledger,
        usable: Usable,
        bar: Task,
        any_usable: bool,
        how: Batching,
    ) -> None:
        self.endpoint, self.manner, self.tariff, self.ledger = endpoint, manner, tariff, ledger
        self.usable, self.bar, self.any_usable, self.how = usable, bar, any_usable, how
        self.asked = {question.key: question for question in questions}
        self.books = Batches(ledger)
        self.open: list[Batch] = []
        self.set_aside: dict[str, str] = {}
        self._waiting = dict(self.asked)
        self._tries = Counter[str]()
        self._unusable: list[str] = []
        self._states: dict[int, batch_api.State] = {}

    async def ask(self, gate: Gate | None) -> dict[str, str]:
        timeout_s = self.manner.timeout_s
        async with Client(self.endpoint, timeout_s=timeout_s, connections=_CONNECTIONS, gate=gate) as self.client:
            try:
                for batch in self.books.open():
                    await self._take_up(batch)
                while self._waiting or self.open:
                    await self._hand_in_what_fits()
                    for batch in list(self.open):
                        await self._look(batch)
                    if self.open:
                        check_time(self.ledger)
                        await asyncio.sleep(self.how.poll_seconds)
            except Failure as failure:
                kind = SlmopsError if failure.retryable else BadInput
                raise kind(self._said(failure), hint=f"{failure.hint}; the same command goes on from there") from None
        return self.set_aside

    async def _take_up(self, batch: Batch) -> None:
        """Go on with a batch of an earlier call, wherever that was ended."""
        if batch.file is None:
            return self.books.forget(batch)
        if batch.name is None:
            await self._hand_in(batch, perhaps=True)
        self._under_way(batch)
        return None

    def _under_way(self, batch: Batch) -> None:
        self.open.append(batch)
        for key in batch.charges:
            self._waiting.pop(key, None)

    async def _hand_in_what_fits(self) -> None:
        """Make batches of what waits, as long as the budget has room.

        Raises:
            BudgetReached: it has none for a single request, and none is under way.
        """
        while self._waiting and (self.any_usable or not self.open):
            if not (lines := self._next_lines()):
                break
            batch = self.books.write({key: self._most(key) for key in lines})
            try:
                self.books.uploaded(batch, await self._tried(partial(self._upload, lines)))
            except (Failure, SlmopsError):
                self.books.forget(batch)
                raise
            await self._hand_in(batch)
            self._under_way(batch)
        if self._waiting and not self.open:
            raise no_room(self.ledger)

    def _next_lines(self) -> dict[str, bytes]:
        """The lines of the next file, by the keys of their questions: as many as it may have and the budget bears."""
        check_time(self.ledger)
        lines: dict[str, bytes] = {}
        most, bytes_left = Cost(), self.how.file_mb * 1e6
        for key, question in list(self._waiting.items()):
            line = batch_api.line_of(
                key, self.endpoint.model, question.messages, {**self.manner.sampling, **question.sampling}
            )
            if len(line) > self.how.file_mb * 1e6:
                self._put_aside(
                    key, f"its request has {len(line)} bytes, and a file of a batch {self.how.file_mb:g} MB"
                )
                continue
            most, bytes_left = most + self._most(key), bytes_left - len(line)
            full = len(lines) == (self.how.requests if self.any_usable else min(self.how.pilot, self.how.requests))
            if full or bytes_left < 0 or not self.ledger.fits(most):
                break
            lines[key] = line
        return lines

    async def _upload(self, lines: Mapping[str, bytes]) -> str:
        if gate := self.client.gate:
            for key, line in lines.items():
                gate.leaving(line, self.asked[key].messages)
        return await batch_api.upload(self.client, b"".join(lines.values()))

    async def _hand_in(self, batch: Batch, *, perhaps: bool = False) -> None:
        """Have the requests of an uploaded file done, once.

        Args:
            perhaps: this was tried before, and nobody knows whether it went well: the provider's list says.
        """
        file, tries = str(batch.file), 0
        while True:
            if perhaps and (name := await self._find(file)):
                break
            try:
                name = await batch_api.hand_in(self.client, file, self.how.window)
                break
            except Failure as failure:
                if not failure.retryable:
                    self.books.forget(batch)
                    raise
                perhaps, tries = True, tries + 1
                if tries > self.manner.retries:
                    raise
                await asyncio.sleep(pause_s(tries, failure))
        self.books.handed_in(batch, name)

    async def _find(self, file: str) -> str | None:
        """The provider's name of the batch of a file, if there is one.

        Raises:
            SlmopsError: it does not say; to hand the file in again may be to buy it twice.
        """
        try:
            return await self._tried(partial(batch_api.find, self.client, file))
        except Failure as failure:
            raise SlmopsError(
                f"nobody knows whether the batch of the file {file} was handed in: {self._said(failure)}",
                hint="the same command goes on once the endpoint lists its batches (GET /batches)",
            ) from None

    async def _look(self, batch: Batch) -> None:
        """See how far a batch is; when it has ended, take what it brought.

        Raises:
            SlmopsError: the provider refused it or somebody cancelled it.
        """
        state = await self._tried(partial(batch_api.look, self.client, str(batch.name)), _LOOKS)
        self._states[batch.number] = state
        under_way = [self._states[one.number] for one in self.open if one.number in self._states]
        counts = ("completed", "failed", "total")
        self.bar.advance(0, **{count: sum(getattr(one, count) for one in under_way) for count in counts})
        if not state.ended:
            return
        if state.status == "failed" and not state.files:
            self.books.forget(batch)
            self.open.remove(batch)
            said = self.endpoint.clean(state.said)
            raise SlmopsError(
                f"{self.endpoint.host} refuses the batch {batch.name}: {said or 'it does not say why'}",
                hint="nothing was charged; mend it, or make batches smaller (teachers.N.batch.requests), and go on",
            )
        self._take(batch, await outcomes(self.client, state, str(batch.name), batch.charges, self.manner.retries))
        if state.status == "cancelled":
            raise SlmopsError(
                f"the batch {batch.name} was cancelled at {self.endpoint.host}; what it brought is kept",
                hint="the same command hands in what is missing",
            )

    def _take(self, batch: Batch, found: Mapping[str, Outcome]) -> None:
        """Write down what a batch brought, and decide what becomes of each of its questions.

        Raises:
            SlmopsError: see `buy_batches`; all of it is written down before.
        """
        self.books.settle(batch, {key: self._end(of_it) for key, of_it in found.items()})
        self.open.remove(batch)
        # A batch of an earlier call may hold questions that are not asked any more.
        mine = {key: of_it for key, of_it in found.items() if key in self.asked}
        self.bar.advance(answers(mine), usd=self.ledger.spent.usd)
        for key, of_it in mine.items():
            if isinstance(of_it, Failure):
                self._again_or_aside(key, of_it)
            else:
                self._judge(key, of_it)
        if not self.any_usable and len(self._unusable) >= self.manner.unusable:
            raise none_usable(self._unusable, self.manner.mend)

    def _end(self, of_it: Outcome) -> End:
        if isinstance(of_it, Reply):
            return End(self.tariff.of_reply(of_it), record_of(of_it))
        return End(None if of_it.charged else Cost(requests=1))

    def _judge(self, key: str, reply: Reply) -> None:
        """See whether an answer can be used, and costs what it may."""
        question, record = self.asked[key], record_of(reply)
        cost = self.tariff.of_reply(reply) or Cost()
        check_cost(self.ledger.budget, cost, self._most(key), self.endpoint.host)
        if not self.any_usable:
            reason = (question.usable or self.usable)(record)
            self.any_usable = reason is None
            self._unusable.append(f"{record['text'][:120]!r}: {reason}")

    def _again_or_aside(self, key: str, failure: Failure) -> None:
        """Let a question wait for another batch, or set it aside.

        Raises:
            BadInput: it is not the question that is refused.
        """
        if not failure.retryable and not failure.of_the_request:
            raise BadInput(self._said(failure), hint=failure.hint)
        self._tries[key] += 1
        if failure.of_the_request or self._tries[key] > self.manner.retries:
            self._put_aside(key, self._said(failure))
        else:
            self._waiting[key] = self.asked[key]

    def _put_aside(self, key: str, reason: str) -> None:
        self._waiting.pop(key, None)
        self.set_aside[key] = reason
        self.bar.advance(1)
        self._unusable.append(reason)

    def _most(self, key: str) -> Cost:
        return self.tariff.most(self.asked[key].messages, self.manner.max_tokens)

    async def _tried(self, call: Callable[[], Awaitable[T]], retries: int | None = None) -> T:
        """What a call brings, tried again while that may help: `manner.retries` times unless told."""
        for tries in range(1, (self.manner.retries if retries is None else retries) + 1):
            try:
                return await call()
            except Failure as failure:
                if not failure.retryable:
                    raise
                await asyncio.sleep(pause_s(tries, failure))
        return await call()

    def _said(self, failure: Failure) -> str:
        return f"{self.endpoint.model} at {self.endpoint.host} {failure}"
