"""How sure a teacher was of a field is how likely its key and value were."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slmops.teach.answers import Answer
from slmops.teach.certainty import member_certainties

ANSWER = '{"intent":"refund","name":" Zoë 🙂","order":"4711"}'


def answer(tokenizer, unlikely: dict[int, float], *, k: int = 2) -> Answer:
    """`ANSWER` as tokens, all certain but those that are named; the written token is not always the first."""
    tokens = np.array(tokenizer.encode(ANSWER))
    ids = np.stack([np.full_like(tokens, 7), tokens], axis=1).astype(np.int32)[:, :k]
    log_probs = np.zeros((len(tokens), 2), np.float32)[:, :k]
    log_probs[:, :1] = -5
    for token, chance in unlikely.items():
        log_probs[token, 1] = math.log(chance)
    return Answer("1", "text", ANSWER, tokens, ids, log_probs)


def covering(tokenizer, part: str) -> list[int]:
    """Tokens that share a character with `part`."""
    stream, at, found = tokenizer.stream(), 0, []
    start = ANSWER.index(part)
    for number, token in enumerate(tokenizer.encode(ANSWER)):
        piece = stream.feed(token)
        if at < start + len(part) and at + len(piece) > start:
            found.append(number)
        at += len(piece)
    return found


def test_a_field_is_as_sure_as_its_tokens_together(tiny_tokenizer):
    value = covering(tiny_tokenizer, "4711")
    sure = member_certainties(answer(tiny_tokenizer, {value[0]: 0.5, value[-1]: 0.8}), tiny_tokenizer)
    assert list(sure) == ["intent", "name", "order"]
    assert sure["order"] == pytest.approx(0.4 if len(value) > 1 else 0.8)
    assert sure["intent"] == sure["name"] == pytest.approx(1)


def test_the_key_counts_and_so_does_every_token_of_a_character(tiny_tokenizer):
    key = covering(tiny_tokenizer, '"name"')[-1]
    # The face is several tokens, of which only the last gives a character.
    face = covering(tiny_tokenizer, "🙂")[-1]
    sure = member_certainties(answer(tiny_tokenizer, {key: 0.5, face - 1: 0.5}), tiny_tokenizer)
    assert sure["name"] == pytest.approx(0.25)


def test_without_stored_probabilities_nothing_is_said(tiny_tokenizer):
    assert member_certainties(answer(tiny_tokenizer, {}, k=0), tiny_tokenizer) == {}


def test_a_token_that_is_not_among_the_likely_ones_is_no_likelier_than_they(tiny_tokenizer):
    told = answer(tiny_tokenizer, {}, k=1)  # of each token another one is known, of log-probability -5
    value = covering(tiny_tokenizer, '"order":"4711"')
    assert member_certainties(told, tiny_tokenizer)["order"] == pytest.approx(math.exp(-5 * len(value)), rel=1e-3)
