"""Requests join, share, wait their turn and leave; each gets the answer that it would get alone."""

from __future__ import annotations

import logging
import queue
import time

import numpy as np
import pytest

from slmops.engines import Sampling, load_engine
from slmops.engines.choices import tree
from slmops.serve import scheduler as module
from slmops.serve.choosing import Choosing
from slmops.serve.generation import Generation, Piece
from slmops.serve.scheduler import Refused, Scheduler, Ticket


class Watch:
    def __init__(self) -> None:
        self.told: list[tuple[Ticket, str]] = []

    def ended(self, ticket, ended) -> None:
        self.told.append((ticket, ended))

    def stepped(self, **_counts) -> None: ...


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def make(running, watch, ends):
    def make(queue_: int = 100) -> Scheduler:
        scheduler = Scheduler(running, watch, queue=queue_)
        ends.append(lambda: scheduler.close(0))
        return scheduler

    return make


class Answer:
    """Collects the pieces of one answer."""

    def __init__(self, tiny, prompt: list[int], **told) -> None:
        self.pieces: queue.Queue[Piece] = queue.Queue()
        sampling = Sampling(**{"max_tokens": 40} | told.pop("sampling", {}))
        self.job = Generation(prompt, sampling, self.pieces.put, tiny.tokenizer, **told)

    def all(self) -> list[Piece]:
        found = []
        while not found or not found[-1].ended:
            found.append(self.pieces.get(timeout=60))
        return found

    def text(self) -> str:
        return "".join(piece.text for piece in self.all())


def test_more_requests_than_slots_each_get_their_own_answer(make, tiny):
    scheduler = make()
    wanted = list(tiny.pairs.items()) * 3
    answers = [Answer(tiny, tiny.prompt(text)) for text, _ in wanted]
    for answer in answers:
        scheduler.submit(answer.job)
    assert [answer.text() for answer in answers] == [expected for _, expected in wanted]


def test_draws_are_those_of_the_engine(make, tiny, tiny_onnx):
    prompt = tiny.prompt("Where is order 4711?")
    sampling = {"max_tokens": 12, "temperature": 1.5, "seed": 3}
    alone = [token.id for token in load_engine("onnxruntime-genai", tiny_onnx).generate([prompt], Sampling(**sampling))]
    scheduler = make()
    answers = [Answer(tiny, prompt, sampling=sampling) for _ in range(2)]
    for answer in answers:
        scheduler.submit(answer.job)
    assert [[piece.token for piece in answer.all()] for answer in answers] == [alone, alone]


def test_a_long_prompt_holds_nobody_up_by_more_than_a_piece(make, running, tiny, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 8)
    monkeypatch.setattr(module, "ALONE", 16)
    scheduler = make()
    writes = Answer(tiny, [1, 2, 3], sampling={"max_tokens": 100, "temperature": 5.0, "seed": 1})
    reads = Answer(tiny, list(np.random.default_rng(0).integers(0, tiny.tokenizer.size, 80)))
    scheduler.submit(writes.job)
    writes.pieces.get(timeout=60)
    scheduler.submit(reads.job)
    writes.all()
    reads.all()
    together = [step for step in running.steps if len(step) == 2]
    assert together, "both ran in the same steps"
    assert all(sorted(step.values())[0] == 1 and sorted(step.values())[1] <= 8 for step in together)
    assert max(max(step.values()) for step in running.steps) <= 16


def test_prompts_that_come_together_and_begin_alike_are_read_once(make, running, tiny, monkeypatch):
    monkeypatch.setattr(module, "ALONE", 16)
    monkeypatch.setattr(module, "PIECE", 16)
    scheduler, beginning = make(), list(np.random.default_rng(1).integers(0, tiny.tokenizer.size, 64).tolist())
    answers = [Answer(tiny, [*beginning, end, 5, 6, 7], sampling={"max_tokens": 1}) for end in (1, 2)]
    # Neither is there before the other.
    with scheduler._changed:
        tickets = [scheduler.submit(answer.job) for answer in answers]
    for answer in answers:
        answer.all()
    assert [ticket.known for ticket in tickets] == [0, 64]
    assert sum(sum(step.values()) for step in running.steps) == 64 + 4 + 4


def test_clients_take_turns(make, running, tiny, watch):
    scheduler = make()
    prompt = tiny.prompt("I want my 20 € back")
    greedy = [Answer(tiny, prompt) for _ in range(8)]
    tickets = [scheduler.submit(answer.job, client="greedy") for answer in greedy]
    modest = Answer(tiny, prompt)
    ticket = scheduler.submit(modest.job, client="modest")
    for answer in [*greedy, modest]:
        answer.all()
    order = sorted([*tickets, ticket], key=lambda one: one.times.began)
    assert order.index(ticket) <= 4, "it came last, and waited for no more than those that ran and one turn"


def test_a_full_queue_refuses_and_says_when_to_come_again(make, tiny):
    scheduler = make(1)
    prompt = list(range(60))
    answers = [Answer(tiny, prompt, sampling={"max_tokens": 60}) for _ in range(8)]

    def submit_all() -> None:
        for answer in answers:
            scheduler.submit(answer.job)

    with pytest.raises(Refused) as refused:
        submit_all()
    assert refused.value.wait_s >= 1


def test_who_gives_up_leaves_the_slot_to_others(make, tiny, watch):
    scheduler = make()
    endless = [Answer(tiny, [1, 2, 3], sampling={"max_tokens": 100, "temperature": 2.0, "seed": n}) for n in range(2)]
    tickets = [scheduler.submit(answer.job) for answer in endless]
    waits = Answer(tiny, tiny.prompt("I want my 20 € back"))
    scheduler.submit(waits.job)
    for answer, ticket in zip(endless, tickets, strict=True):
        answer.pieces.get(timeout=60)
        ticket.cancel()
    assert waits.text() == tiny.pairs["I want my 20 € back"]
    assert {answer.all()[-1].ended for answer in endless} <= {"cancelled", "stop"}


def test_a_deadline_ends_those_that_wait_and_those_that_write(make, tiny):
    scheduler = make()
    late = Answer(tiny, tiny.prompt("Where is order 4711?"))
    scheduler.submit(late.job, deadline=time.monotonic() - 1)
    assert late.all()[-1].ended == "deadline"


def test_when_the_runtime_fails_all_are_told_and_the_log_quotes_nobody(make, running, tiny, caplog):
    scheduler = make()
    running.fails = True
    answer = Answer(tiny, tiny.prompt("Where is order 4711?"))
    with caplog.at_level(logging.ERROR):
        scheduler.submit(answer.job)
        assert answer.all()[-1].ended == "failed"
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    running.fails = False
    again = Answer(tiny, tiny.prompt("Where is order 4711?"))
    scheduler.submit(again.job)
    assert again.text() == tiny.pairs["Where is order 4711?"]


def test_a_request_that_fails_takes_nobody_with_it(make, tiny, caplog):
    """As an answer whose form has become too dear to follow."""

    class TooDear:
        def allow(self, _logits):
            raise RuntimeError("a secret form")

        def accept(self, token) -> None: ...

    scheduler = make()
    fails = Answer(tiny, tiny.prompt("I want my 20 € back"), constraint=TooDear())
    goes_on = Answer(tiny, tiny.prompt("Where is order 4711?"))
    scheduler.submit(goes_on.job)
    scheduler.submit(fails.job)
    assert fails.all()[-1].ended == "failed"
    assert goes_on.text() == tiny.pairs["Where is order 4711?"]
    after = Answer(tiny, tiny.prompt("I want my 20 € back"))
    scheduler.submit(after.job)
    assert after.text() == tiny.pairs["I want my 20 € back"]
    assert "secret" not in caplog.text


def test_closing_finishes_what_was_taken_and_takes_nothing_more(make, tiny):
    scheduler = make()
    answers = [Answer(tiny, tiny.prompt(text)) for text in tiny.pairs]
    for answer in answers:
        scheduler.submit(answer.job)
    scheduler.close(60)
    assert [answer.text() for answer in answers] == list(tiny.pairs.values())
    with pytest.raises(Refused) as refused:
        scheduler.submit(answers[0].job)
    assert refused.value.wait_s is None


def test_choices_have_the_likelihood_that_the_engine_gives(make, tiny, tiny_onnx):
    texts = ("refund", "refunds", "invoice", '{"intent":"refund"', "🙂🙂")
    choices = [[*tiny.tokenizer.encode(text), 0] for text in texts]
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    expected = load_engine("onnxruntime-genai", tiny_onnx).score_choices(prompts, choices)
    scheduler, found = make(), [queue.Queue() for _ in prompts]
    writes = Answer(tiny, prompts[0])
    scheduler.submit(writes.job)
    for prompt, put in zip(prompts, found, strict=True):
        scheduler.submit(Choosing(prompt, tree(choices), len(choices), put.put))
    scores = np.stack([one.get(timeout=60) for one in found])
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert writes.text() == next(iter(tiny.pairs.values()))


def test_times_and_counts_are_told(make, tiny, watch):
    scheduler = make()
    prompt = tiny.prompt("I want my 20 € back")
    for _ in range(2):
        answer = Answer(tiny, prompt)
        scheduler.submit(answer.job)
        pieces = answer.all()
    scheduler.close(10)
    (first, _), (second, ended) = watch.told
    assert ended == "stop"
    assert (first.known, second.known) == (0, len(prompt) - 1)
    assert second.job.written == len(pieces)
    times = second.times
    assert times.came <= times.began <= times.first <= times.ended
