"""Requests that share one running batch: who joins, whose tokens are run next, and who leaves.

In every step each answer that is being written gets its next token, and `PIECE` tokens are read of prompts, the oldest
first; so a long prompt slows the others down by a piece at a time, and is read faster when nobody writes.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from slmops.engines.base import Logits
from slmops.engines.running import Running
from slmops.serve.job import Ended, Job, Move

PIECE = 128
"""Prompt tokens read in a step while answers are written."""

ALONE = 512
"""The same while none is: a longer piece is run faster, and keeps nobody waiting but who comes next."""

_FIRST_GUESS_S, _SMOOTHING = 1.0, 0.2


class Refused(Exception):
    """A request that is not taken.

    Attributes:
        wait_s: after which it may be; None when it will not be, since the scheduler closes.
    """

    def __init__(self, wait_s: int | None) -> None:
        super().__init__("the queue is full" if wait_s is not None else "the server is closing")
        self.wait_s = wait_s


@dataclass
class Times:
    """When things happened to a request, by `time.monotonic`; None where they have not."""

    came: float = field(default_factory=time.monotonic)
    began: float | None = None
    first: float | None = None
    ended: float | None = None


class Worn(NamedTuple):
    """An adapter that a request runs with: its name in the bundle, and what `Adapting.load_adapter` gave."""

    name: str
    adapter: Any


@dataclass(eq=False)
class Ticket:
    """A request that was taken.

    Attributes:
        client: whose it is: clients take turns.
        deadline: by `time.monotonic`; None for none.
        known: tokens of the prompt that were not run, since another sequence begins with them.
        ended: why, once it has.
        worn: the adapter that it runs with; None runs the base.
    """

    job: Job
    client: str
    deadline: float | None
    worn: Worn | None = None
    times: Times = field(default_factory=Times)
    known: int = 0
    ended: Ended | None = None
    _cancelled: bool = False

    def cancel(self) -> None:
        """Give it up: it leaves before the next step is run."""
        self._cancelled = True

    def over(self, now: float) -> Ended | None:
        """Why it is not to go on; None where it is."""
        if self._cancelled:
            return "cancelled"
        return "deadline" if self.deadline is not None and now > self.deadline else None


class Observer(Protocol):
    """Who counts what a scheduler does; called in its thread."""

    def ended(self, ticket: Ticket, ended: Ended) -> None:
        """A request ended."""

    def stepped(self, *, waiting: int, running: int, held: int) -> None:
        """A step was run, by so many requests; the running ones have `held` tokens in the cache."""


@dataclass(eq=False)
class _Seat:
    """A ticket in its slot.

    Attributes:
        unread: tokens that are to be run behind those that were.
        length: tokens of its sequence that were run.
        guesses: what may follow on these.
        begun: its sequence has the slot of the running batch.
    """

    ticket: Ticket
    unread: Sequence[int]
    length: int = 0
    begun: bool = False
    guesses: Sequence[int] = ()
    reads_prompt: bool = True


class Scheduler:
    """Drives a running batch in a thread of its own."""

    def __init__(self, running: Running, observer: Observer, *, queue: int, alone: int | None = None) -> None:
        """`queue` requests wait at most; `alone` prompt tokens, `ALONE`, are read in a step while nobody writes."""
        self._running, self._observer, self._most, self._alone = running, observer, queue, alone or ALONE
        self._waiting: dict[str, deque[Ticket]] = {}
        self._seats: dict[int, _Seat] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._service_s = _FIRST_GUESS_S
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, client: str = "", deadline: float | None = None, worn: Worn | None = None) -> Ticket:
        """Queue a request.

        Raises:
            Refused: the queue is full, or this is closing.
        """
        with self._changed:
            if self._closing:
                raise Refused(None)
            if self._queued >= self._most:
                raise Refused(math.ceil(self._service_s * self._queued / self._running.slots) or 1)
            ticket = Ticket(job, client, deadline, worn)
            self._waiting.setdefault(client, deque()).append(ticket)
            self._changed.notify()
        return ticket

    def close(self, grace_s: float) -> None:
        """Take nothing more, and return when all that was taken has ended; what has not after `grace_s` is given up."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(grace_s)
        with self._changed:
            seated = [seat.ticket for seat in list(self._seats.values())]
            for ticket in [*seated, *(ticket for tickets in self._waiting.values() for ticket in tickets)]:
                ticket.cancel()
        self._thread.join()

    @property
    def _queued(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._seats or self._closing):
                    self._changed.wait()
                if not (self._waiting or self._seats):
                    return
                self._drop()
                self._admit()
                waiting = self._queued
            if self._seats:
                self._step()
            held = sum(seat.length for seat in self._seats.values())
            self._observer.stepped(waiting=waiting, running=len(self._seats), held=held)

    def _drop(self) -> None:
        """Those that are given up or out of time leave, wherever they are."""
        now = time.monotonic()
        for slot, seat in list(self._seats.items()):
            if ended := seat.ticket.over(now):
                self._leave(slot, ended)
        for client, tickets in list(self._waiting.items()):
            for ticket in [ticket for ticket in tickets if ticket.over(now)]:
                tickets.remove(ticket)
                self._told(ticket, ticket.over(now) or "cancelled")
            if not tickets:
                del self._waiting[client]

    def _admit(self) -> None:
        """Clients take turns for the slots that are free."""
        for slot in range(self._running.slots):
            if slot in self._seats or not self._waiting:
                continue
            client = next(iter(self._waiting))
            tickets = self._waiting.pop(client)
            ticket = tickets.popleft()
            if tickets:
                self._waiting[client] = tickets
            ticket.times.began = time.monotonic()
            self._seats[slot] = _Seat(ticket, ticket.job.prompt)

    def _step(self) -> None:
        try:
            steps, guesses = self._steps()
            found = self._running.run(steps, guesses)
        except Exception as error:
            # What a runtime says may quote somebody's text; its kind is enough for a log.
            logging.getLogger(__name__).error("the runtime failed: %s", type(error).__name__)
            for slot in list(self._seats):
                self._leave(slot, "failed")
            return
        for slot, logits in found.items():
            seat = self._seats[slot]
            seat.length += len(steps[slot])
            seat.unread = seat.unread[len(steps[slot]) :]
            if not seat.unread:
                seat.reads_prompt = False
                seat.ticket.times.first = seat.ticket.times.first or time.monotonic()
                self._move(slot, seat, self._asked(seat.ticket.job, logits))

    def _asked(self, job: Job, logits: Logits) -> Move | Ended:
        """What a job wants next. One that fails is told so and ends: the others have nothing to do with it."""
        try:
            return job.go_on(logits)
        except Exception as error:
            logging.getLogger(__name__).error("a request failed: %s", type(error).__name__)
            job.stop("failed")
            return "failed"

    def _steps(self) -> tuple[dict[int, Sequence[int]], dict[int, int]]:
        """What is run next: all of those that write, and pieces of prompts; and how many of the tokens are guesses."""
        writing = {slot: seat for slot, seat in self._seats.items() if not seat.reads_prompt}
        guessing = writing if len(writing) <= self._running.guessing else {}
        guesses = {slot: len(seat.guesses) for slot, seat in guessing.items() if seat.guesses}
        steps = {
            slot: [*seat.unread, *seat.guesses] if slot in guesses else seat.unread for slot, seat in writing.items()
        }
        room = PIECE if steps else self._alone
        reading = ((slot, seat) for slot, seat in self._seats.items() if seat.reads_prompt)
        for slot, seat in sorted(reading, key=lambda pair: pair[1].ticket.times.came):
            if room <= 0:
                break
            if not seat.begun:
                self._begin(slot, seat)
            steps[slot] = seat.unread[:room]
            room -= len(steps[slot])
        return steps, guesses

    def _begin(self, slot: int, seat: _Seat) -> None:
        """Give a prompt its slot, when it is read and not when it comes: those before it may begin alike."""
        seat.begun, prompt = True, seat.ticket.job.prompt
        adapter = seat.ticket.worn.adapter if seat.ticket.worn else None
        seat.length = seat.ticket.known = self._running.begin(slot, prompt, adapter)
        seat.unread = prompt[seat.length :]

    def _move(self, slot: int, seat: _Seat, move: Move | Ended) -> None:
        if not isinstance(move, Move):
            self._leave(slot, move, told=True)
            return
        if move.keep < seat.length:
            self._running.rewind(slot, move.keep)
            seat.length = move.keep
        seat.unread, seat.guesses = move.ids, move.guesses

    def _leave(self, slot: int, ended: Ended, *, told: bool = False) -> None:
        ticket = self._seats.pop(slot).ticket
        if ticket.times.began is not None:
            took = time.monotonic() - ticket.times.began
            self._service_s += _SMOOTHING * (took - self._service_s)
        self._told(ticket, ended, told=told)

    def _told(self, ticket: Ticket, ended: Ended, *, told: bool = False) -> None:
        """Let the job know, unless it said so itself, and the observer."""
        ticket.times.ended, ticket.ended = time.monotonic(), ended
        if not told:
            ticket.job.stop(ended)
        self._observer.ended(ticket, ended)
