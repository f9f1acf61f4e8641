"""What answers commonly say is found, kept and refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from slmops.bundle.phrases import ORDER, Phrases
from slmops.errors import BadInput

texts = st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=5), st.lists(st.integers(0, 9), min_size=1)))


def test_the_longest_known_beginning_says_what_follows():
    phrases = Phrases.of([([7], [1, 2, 3]), ([7], [1, 2, 3]), ([7], [1, 2, 3]), ([8], [2, 4]), ([8], [2, 4])])
    assert phrases.after([7]) == (1, 1.0)
    assert phrases.after([1, 2]) == (3, 1.0)
    assert phrases.after([0, 2]) == (3, 0.6)
    assert phrases.after([3]) is None, "nothing follows on it"
    assert phrases.after([8]) is None, "twice may be one person's words"
    assert phrases.after([]) is None


@given(texts)
def test_what_is_kept_says_the_same(tmp_path_factory, told):
    phrases = Phrases.of(told)
    path = tmp_path_factory.mktemp("phrases") / "phrases.safetensors"
    phrases.save(path)
    again = Phrases.load(path, vocabulary=10)
    assert len(again) == len(phrases)
    for prompt, answer in told:
        text = [*prompt, *answer]
        for end in range(len(text)):
            before, after = phrases.after(text[:end]), again.after(text[:end])
            assert before == (after and (after[0], pytest.approx(after[1])))


def test_a_file_that_lies_is_refused(tmp_path):
    path = tmp_path / "phrases.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BadInput, match="cannot be read"):
        Phrases.load(path, vocabulary=10)
    one = np.zeros(1, dtype=np.int32)
    tables = {"beginnings": np.zeros((1, ORDER), dtype=np.int32), "tokens": one, "shares": one.astype(np.float32)}
    save_file(tables | {"tokens": one + 10}, path)
    with pytest.raises(BadInput, match="does not have"):
        Phrases.load(path, vocabulary=10)
    save_file(tables | {"shares": np.zeros(2, dtype=np.float32)}, path)
    with pytest.raises(BadInput, match="unlike sizes"):
        Phrases.load(path, vocabulary=10)
