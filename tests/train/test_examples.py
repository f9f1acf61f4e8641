from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from slmops.train.examples import schedule

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=120)


@given(LENGTHS, st.integers(1, 4), st.integers(50, 600), st.integers(0, 9))
def test_every_row_comes_once_per_epoch(lengths, epochs, batch_tokens, seed):
    plan = schedule(lengths, epochs=epochs, batch_tokens=batch_tokens, seed=seed)
    assert Counter(i for batch in plan for i in batch) == dict.fromkeys(range(len(lengths)), epochs)


@given(LENGTHS, st.integers(50, 600))
def test_no_batch_is_over_its_tokens_unless_one_row_is(lengths, batch_tokens):
    for batch in schedule(lengths, epochs=1, batch_tokens=batch_tokens, seed=0):
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= batch_tokens or len(batch) == 1


@given(LENGTHS, st.integers(0, 99))
def test_a_seed_names_one_order(lengths, seed):
    def plan(epochs):
        return schedule(lengths, epochs=epochs, batch_tokens=100, seed=seed)

    assert plan(2) == plan(2)
    assert plan(2)[: len(plan(1))] == plan(1)


def test_a_part_of_an_epoch_is_a_part_of_its_batches():
    whole = schedule([10] * 100, epochs=1, batch_tokens=100, seed=3)
    assert schedule([10] * 100, epochs=1.5, batch_tokens=100, seed=3)[:10] == whole
    assert len(schedule([10] * 100, epochs=1.5, batch_tokens=100, seed=3)) == 15


def test_padding_is_a_small_part():
    lengths = [10 + i % 90 for i in range(2000)]
    plan = schedule(lengths, epochs=1, batch_tokens=1000, seed=0)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)
    assert sum(lengths) / padded > 0.9
