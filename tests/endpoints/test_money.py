"""Costs are exact, and what is reserved is never below what is charged."""

from __future__ import annotations

from decimal import Decimal

import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from slmops.endpoints.client import Reply
from slmops.endpoints.money import PICO, Cost, Tariff
from slmops.recipe.evaluate import Price


def reply(prompt: int | None, written: int | None, cached: int = 0) -> Reply:
    return Reply("text", "stop", prompt, written, cached, 0.1)


def test_a_cost_is_what_a_bill_would_say():
    tariff = Tariff.of(Price(input_usd=0.27, output_usd=1.1, cached_input_usd=0.07))
    cost = tariff.of_reply(reply(1000, 100, 400))
    bill = Decimal("0.27") * 600 + Decimal("0.07") * 400 + Decimal("1.1") * 100
    assert cost == Cost(int(bill * PICO / 10**6), 1100, 1)
    assert tariff.of_reply(reply(1000, 100)).pico == (270_000 * 1000 + 1_100_000 * 100)
    assert tariff.of_reply(reply(None, 3)) is None
    assert Tariff.of(None).of_reply(reply(5, 5)) == Cost(0, 10, 1)


def test_a_thousand_sums_of_a_tenth_are_a_hundred():
    one = Tariff.of(Price(input_usd=0.1, output_usd=0.0)).of_reply(reply(1_000_000, 0))
    assert sum([one] * 1000, Cost()).usd == 100.0


PRICES = st.floats(0, 100, allow_nan=False)


@given(
    text=st.text(max_size=60),
    prices=st.tuples(PRICES, PRICES, st.none() | PRICES),
    written=st.integers(0, 50),
    cached=st.integers(0, 2000),
    template=st.integers(0, 512),
)
def test_no_reply_costs_more_than_was_reserved(text, prices, written, cached, template):
    """As long as a token is a byte or more, which a tokenizer of single bytes comes nearest to."""
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tariff = Tariff.of(Price(input_usd=prices[0], output_usd=prices[1], cached_input_usd=prices[2]))
    prompt = len(backend.encode(text).ids) + template
    cost = tariff.of_reply(reply(prompt, written, cached))
    most = tariff.most([{"role": "user", "content": text}], 50)
    assert cost.pico <= most.pico
    assert cost.tokens <= most.tokens
