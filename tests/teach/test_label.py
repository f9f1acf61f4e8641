"""The pool is answered row by row, in order, and an interrupted call goes on behind its last whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from slmops.engines import Engine, Sampling, Token, load_engine
from slmops.engines.base import Prompts
from slmops.teach.answers import Answer
from slmops.teach.label import agreement, label_pool


@dataclass
class Watched:
    """An engine that counts what it is asked, and fails when its time has come."""

    engine: Engine
    batches: int = 99
    asked: list[int] = field(default_factory=list)

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        if len(self.asked) == self.batches:
            raise KeyboardInterrupt
        self.asked.append(len(prompts))
        return self.engine.generate(prompts, sampling, top_logits=top_logits)


@pytest.fixture(scope="module")
def rows(tiny) -> list[dict[str, str]]:
    """Twelve rows in which long and short texts alternate."""
    texts = list(tiny.pairs)
    return [{"id": f"row-{i}", "input": texts[i % 4]} for i in range(12)]


@pytest.fixture
def label(tiny, task, rows, tmp_path):
    def call(engine, *, top_logits: int = 4) -> list[Answer]:
        return label_pool(engine, tiny.tokenizer, task, rows, batch=5, top_logits=top_logits, work=tmp_path / "work")

    return call


def test_each_row_gets_the_answer_to_its_own_text_in_the_order_of_the_rows(label, engine, rows, tiny):
    watched = Watched(engine)
    answers = label(watched)
    assert watched.asked == [5, 5, 2]
    assert [(a.id, a.input, a.text) for a in answers] == [(r["id"], r["input"], tiny.pairs[r["input"]]) for r in rows]


def test_tokens_end_with_the_end_token_and_carry_the_most_likely_ones(label, engine, tiny):
    for answer in label(engine):
        assert answer.tokens[-1] in tiny.tokenizer.end_ids
        assert answer.top_ids.shape == answer.top_log_probs.shape == (len(answer.tokens), 4)
        # The answer is greedy, so the most likely token is the one that was written.
        assert np.array_equal(answer.top_ids[:, 0], answer.tokens)
        assert (np.diff(answer.top_log_probs) <= 0).all()
        assert (np.exp(answer.top_log_probs).sum(1) <= 1 + 1e-5).all()


def test_no_probabilities_are_kept_when_none_are_wanted(label, engine):
    assert {answer.top_ids.shape[1] for answer in label(engine, top_logits=0)} == {0}


def test_it_goes_on_behind_the_last_whole_batch(label, engine, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        label(Watched(engine, batches=2))
    resumed = Watched(engine)
    answers = label(resumed)
    assert resumed.asked == [2]
    assert len(answers) == 12


@pytest.mark.parametrize("left", ["answers.safetensors", "answers.jsonl.part"])
def test_a_batch_that_was_cut_off_is_asked_again(label, engine, tmp_path, left):
    whole = [answer.text for answer in label(engine)]
    torn = sorted((tmp_path / "work").iterdir())[1]
    (torn / "answers.jsonl").unlink()
    (torn / left).write_bytes(b"torn")
    resumed = Watched(engine)
    assert [answer.text for answer in label(resumed)] == whole
    assert resumed.asked == [5]


def test_agreement_is_the_share_of_equal_answers(label, engine, tiny, task):
    reference = load_engine("transformers", tiny.folder, threads=1)
    answers = label(engine)[:4]
    assert agreement(reference, answers, tiny.tokenizer, task) == 1.0
    same = [replace(answer, tokens=answers[0].tokens) for answer in answers]
    assert agreement(reference, same, tiny.tokenizer, task) == 0.25
