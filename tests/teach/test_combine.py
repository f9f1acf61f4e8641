"""Several teachers as one: votes and mixtures, whatever the order in which teachers come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.engines.base import Top
from slmops.models.tokenizer import CHATML, Tokenizer
from slmops.tasks import Classification
from slmops.teach.answers import Answer
from slmops.teach.combine import elect, mixed, opinions, retold, share_vocabulary, shares, together
from slmops.teach.label import label_pool

LABELS = Classification(("refund", "other", "invoice"), None, 8)
WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=4)


def answer(text: str, tokens: Sequence[int] = (5, 2), top: Top | None = None, id: str = "p1") -> Answer:
    ids, log_probs = top or (np.zeros((len(tokens), 0), np.int32), np.zeros((len(tokens), 0), np.float32))
    return Answer(id, "hello", text, np.array(tokens, dtype=np.int64), ids, log_probs)


def likely(seed: int, places: int, k: int, vocabulary: int = 12) -> Top:
    """The k most likely tokens of random distributions over a small vocabulary."""
    logits = np.random.default_rng(seed).normal(size=(places, vocabulary)) * 3
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = np.argsort(-probs, axis=1)[:, :k]
    return ids.astype(np.int32), np.log(np.take_along_axis(probs, ids, 1)).astype(np.float32)


def by_token(top: Top) -> list[dict[int, float]]:
    return [dict(zip(ids.tolist(), np.exp(probs.astype(float)), strict=True)) for ids, probs in zip(*top, strict=True)]


@given(WEIGHTS)
def test_shares_add_up_to_one_and_keep_their_ratios(weights):
    scaled = shares(weights)
    assert sum(scaled) == pytest.approx(1)
    assert [share / scaled[0] for share in scaled] == pytest.approx([weight / weights[0] for weight in weights])


@given(WEIGHTS, st.integers(0, 5), st.integers(1, 12), st.integers(0, 99))
def test_a_mixture_is_the_weighted_mean_of_what_is_known(weights, places, k, seed):
    parts = [likely(seed + i, places, k) for i in range(len(weights))]
    ids, log_probs = mixed(parts, weights)
    assert ids.shape == log_probs.shape == (places, k)
    assert (ids.dtype, log_probs.dtype) == (np.int32, np.float32)
    assert (np.diff(log_probs, axis=1) <= 0).all()
    assert (np.exp(log_probs.astype(float)).sum(1) <= 1 + 1e-6).all()
    known = [by_token(part) for part in parts]
    for place, probs in enumerate(by_token((ids, log_probs))):
        mean = {
            token: sum(share * of[place].get(token, 0.0) for share, of in zip(shares(weights), known, strict=True))
            for token in {token for of in known for token in of[place]}
        }
        assert len(probs) == k, "no token stands twice"
        assert probs == pytest.approx({token: mean[token] for token in probs}, rel=1e-5)
        left_out = [mean[token] for token in mean.keys() - probs.keys()]
        assert max(left_out, default=0) <= min(probs.values()) * (1 + 1e-5)


@given(st.permutations(range(3)), st.lists(st.floats(0.01, 100), min_size=3, max_size=3), st.integers(0, 99))
def test_the_order_of_the_teachers_changes_no_bit_of_a_mixture(order, weights, seed):
    parts = [likely(seed + i, 4, 6) for i in range(3)]
    ids, log_probs = mixed(parts, weights)
    others, other_probs = mixed([parts[i] for i in order], [weights[i] for i in order])
    assert np.array_equal(ids, others)
    assert np.array_equal(log_probs, other_probs)


@given(WEIGHTS, st.integers(1, 5), st.integers(0, 99))
def test_teachers_of_one_mind_are_one_teacher(weights, k, seed):
    ids, log_probs = likely(seed, 3, k)
    found, probs = mixed([(ids, log_probs)] * len(weights), weights)
    assert np.array_equal(found, ids)
    np.testing.assert_allclose(probs, log_probs, atol=1e-5)


def test_a_token_that_one_teacher_does_not_name_keeps_the_other_ones_share():
    sure = np.array([[7]], np.int32), np.log(np.array([[0.9]], np.float32))
    else_ = np.array([[8]], np.int32), np.log(np.array([[0.5]], np.float32))
    ids, log_probs = mixed([sure, else_], [1.0, 3.0])
    assert ids.tolist() == [[8]]
    assert np.exp(log_probs) == pytest.approx(0.375)


def test_what_all_find_impossible_stays_finite():
    never = np.array([[7, 8]], np.int32), np.array([[0.0, -np.inf]], np.float32)
    assert np.isfinite(mixed([never, never], [1, 1])[1]).all()


@pytest.mark.parametrize(
    ("texts", "weights", "elected"),
    [
        (["refund", "other"], [1, 1], 0),
        (["refund", "other"], [1, 1.5], 1),
        (["refund", "other", "other"], [1, 0.6, 0.7], 2),
        (["refund", "other", " OTHER"], [1, 0.7, 0.6], 1),
        (["refund", "other", "invoice"], [1, 2, 2], 1),
        ([None, "other"], [9, 1], 1),
        ([None, None], [1, 1], None),
    ],
)
def test_the_answer_with_most_weight_behind_it_counts_and_of_its_teachers_the_heaviest(texts, weights, elected):
    answers = [None if text is None else answer(text) for text in texts]
    assert elect(answers, weights, LABELS) == elected


@given(st.permutations(range(4)), st.lists(st.sampled_from(LABELS.labels), min_size=4, max_size=4))
def test_the_order_of_the_teachers_elects_no_other_answer(order, labels):
    weights = [1.0, 2.0, 4.0, 8.5]  # no two sets of teachers are equally heavy
    answers = [answer(label) for label in labels]
    first = elect(answers, weights, LABELS)
    other = elect([answers[i] for i in order], [weights[i] for i in order], LABELS)
    assert first is not None
    assert other is not None
    assert order[other] == first


def test_a_teacher_reads_what_it_did_not_write():
    one, other = likely(1, 2, 3), likely(2, 2, 3)
    texts = [answer("refund", (5, 2), one, "a"), answer("other", (6, 2), other, "b")]
    given = [
        {"a": texts[0], "b": answer("other", (6, 9), one, "b")},  # the same text in other tokens is another
        {"a": answer("other", (6, 2), other, "a"), "b": texts[1]},
    ]
    asked: list[tuple[int, list[str]]] = []

    def read(teacher: int, others: Sequence[Answer]) -> list[Top]:
        asked.append((teacher, [text.id for text in others]))
        return [(one, other)[teacher] for _ in others]

    found = together(texts, given, [1.0, 2.0], read)
    assert asked == [(0, ["b"]), (1, ["a"])]
    assert [text.text for text in found] == ["refund", "other"]
    for text in found:
        ids, log_probs = mixed([one, other], [1.0, 2.0])
        assert np.array_equal(text.top_ids, ids)
        assert np.array_equal(text.top_log_probs, log_probs)


def test_a_teacher_finds_in_its_own_words_what_it_found_when_it_wrote_them(engine, tiny, task, tmp_path):
    rows = [{"id": f"p{i}", "input": text} for i, text in enumerate(tiny.pairs)]
    written = label_pool(engine, tiny.tokenizer, task, rows, batch=4, top_logits=4, work=tmp_path)
    for text, (ids, log_probs) in zip(
        written, opinions(engine, tiny.tokenizer, task, written, batch=3, top_logits=4), strict=True
    ):
        assert np.array_equal(ids[:, 0], text.top_ids[:, 0])
        np.testing.assert_allclose(log_probs[:, 0], text.top_log_probs[:, 0], atol=1e-3)


def bytes_alone(like: Tokenizer) -> Tokenizer:
    """A tokenizer of single bytes, whose every token has another number."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = ["<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return Tokenizer(backend, template=like.template, special_tokens={"eos_token": "<|im_end|>"})


def test_vocabularies_are_shared_when_tokens_and_ends_are_the_same(tiny_tokenizer):
    assert share_vocabulary(tiny_tokenizer, tiny_tokenizer)
    assert not share_vocabulary(tiny_tokenizer, bytes_alone(tiny_tokenizer))
    ends_otherwise = Tokenizer(
        tiny_tokenizer.backend,
        template=CHATML.replace("<|im_end|>", "<|endoftext|>"),
        special_tokens=tiny_tokenizer.special_tokens,
        end_ids=[0],
    )
    assert not share_vocabulary(tiny_tokenizer, ends_otherwise)


def test_words_are_told_again_in_the_first_teachers_tokens(tiny_tokenizer):
    writer = bytes_alone(tiny_tokenizer)
    (end,) = writer.end_ids
    whole = answer("refund", [*writer.encode("refund"), end], likely(1, 7, 2))
    told = retold(whole, writer, tiny_tokenizer)
    assert told.tokens.tolist() == [*tiny_tokenizer.encode("refund"), *tiny_tokenizer.end_ids]
    assert told.top_ids.shape == told.top_log_probs.shape == (len(told.tokens), 0)
    cut_off = retold(replace(whole, tokens=whole.tokens[:-1]), writer, tiny_tokenizer)
    assert cut_off.tokens.tolist() == tiny_tokenizer.encode("refund")
