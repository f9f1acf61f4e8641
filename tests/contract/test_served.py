"""What a served answer is like, whichever runtime writes it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import pytest

from slmops.engines import Sampling, load_engine
from slmops.serve.generation import Generation, Piece
from slmops.serve.scheduler import Scheduler, Ticket


class Nobody:
    """Watches nothing."""

    def ended(self, ticket, ended) -> None: ...

    def stepped(self, **_counts) -> None: ...


class Answer:
    """Collects the pieces of one answer."""

    def __init__(self, scheduler: Scheduler, tiny, prompt: list[int], sampling: Sampling, stops: list[str]) -> None:
        self._pieces: queue.Queue[Piece] = queue.Queue()
        job = Generation(prompt, sampling, self._pieces.put, tiny.tokenizer, stops=stops)
        self.ticket: Ticket = scheduler.submit(job)
        self.pieces: list[Piece] = []

    def next(self) -> Piece:
        self.pieces.append(self._pieces.get(timeout=60))
        return self.pieces[-1]

    def all(self) -> str:
        while not self.next().ended:
            pass
        return "".join(piece.text for piece in self.pieces)

    def tokens(self) -> list[int]:
        self.all()
        return [piece.token for piece in self.pieces if piece.token is not None]


@pytest.fixture
def ask(running, tiny) -> Iterator[Callable[..., Answer]]:
    scheduler = Scheduler(running, Nobody(), queue=100)

    def ask(prompt: list[int], *, stops: list[str] | None = None, **sampling) -> Answer:
        return Answer(scheduler, tiny, prompt, Sampling(**{"max_tokens": 40} | sampling), stops or [])

    yield ask
    scheduler.close(0)


@pytest.fixture(scope="module")
def reference(tiny) -> Callable[..., list[int]]:
    """Tokens that PyTorch writes."""
    engine = load_engine("transformers", tiny.folder, threads=1)
    return lambda prompt, **sampling: [token.id for token in engine.generate([prompt], Sampling(**sampling))]


def test_more_than_there_are_slots_get_their_answers_in_whole_characters(ask, tiny):
    wanted = list(tiny.pairs.items()) * 3
    asked = [ask(tiny.prompt(text)) for text, _ in wanted]
    assert [answer.all() for answer in asked] == [expected for _, expected in wanted]
    assert not any("\ufffd" in piece.text for answer in asked for piece in answer.pieces)


def test_greedy_answers_do_not_depend_on_company(ask, tiny):
    prompt = tiny.prompt("What a lovely day")
    alone = ask(prompt).tokens()
    together = [ask(prompt if n % 2 else tiny.prompt("I want my 20 € back")) for n in range(6)]
    assert [answer.tokens() for answer in together][1::2] == [alone] * 3


def test_a_stop_string_ends_an_answer_within_tokens(ask, tiny):
    text, answer = next(iter(tiny.pairs.items()))
    stop = answer[answer.index("late") + 1 : answer.index("4711") + 2]
    assert len(tiny.tokenizer.encode(stop)) > 1
    asked = ask(tiny.prompt(text), stops=["never", stop])
    assert asked.all() == answer[: answer.index(stop)]
    assert asked.pieces[-1].ended == "stop"


def test_one_seed_writes_one_text_and_that_of_pytorch(ask, tiny, reference):
    told = {"max_tokens": 12, "temperature": 1.5, "seed": 3}
    prompt = tiny.prompt("Where is order 4711?")
    asked = [ask(prompt, **told), ask(prompt, **told | {"seed": 4}), ask(prompt, **told)]
    expected = [reference(prompt, **told | {"seed": seed}) for seed in (3, 4, 3)]
    assert expected[0] != expected[1]
    assert [answer.tokens() for answer in asked] == expected


def test_an_answer_has_no_more_tokens_than_it_may(ask, tiny):
    asked = ask(tiny.prompt("Where is order 4711?"), max_tokens=3)
    assert len(asked.tokens()) == 3
    assert asked.pieces[-1].ended == "length"


def test_the_context_can_be_filled_to_its_end(ask, running, reference):
    prompt = [3 + n % 300 for n in range(running.room - 2)]
    asked = ask(prompt, max_tokens=2)
    assert asked.tokens() == reference(prompt, max_tokens=2)


def test_who_gives_up_leaves_the_slot_to_others(ask, running, tiny):
    endless = [ask([1, 2, 3], max_tokens=100, temperature=5.0, seed=n) for n in range(running.slots)]
    text, expected = next(iter(tiny.pairs.items()))
    waits = ask(tiny.prompt(text))
    for answer in endless:
        answer.next()
        answer.ticket.cancel()
    assert waits.all() == expected
    for answer in endless:
        if not answer.pieces[-1].ended:
            answer.all()
    assert {answer.pieces[-1].ended for answer in endless} <= {"cancelled", "stop"}
