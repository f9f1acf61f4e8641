"""The shared loop: a batch gives up what has finished, and nobody's answer depends on it."""

from collections.abc import Sequence

import numpy as np
import pytest

from slmops.engines.base import Sampling
from slmops.engines.decoding import decode

END = 0


class Counting:
    """A runtime whose request with prompt (n,) writes n, n - 1, … and the end token 0."""

    def __init__(self, prompts: Sequence[Sequence[int]], shrinks: bool, sizes: list[int]) -> None:
        self.last = [prompt[-1] + 1 for prompt in prompts]
        self.shrinks, self.sizes = shrinks, sizes

    def logits(self):
        out = np.zeros((len(self.last), 40), dtype=np.float32)
        for row, last in enumerate(self.last):
            out[row, max(END, last - 1)] = 1
        return out

    def advance(self, ids: Sequence[int]) -> None:
        self.sizes.append(len(ids))
        self.last = list(ids)

    def keep(self, rows: Sequence[int]) -> bool:
        if self.shrinks:
            self.last = [self.last[row] for row in rows]
        return self.shrinks


@pytest.mark.parametrize("shrinks", [True, False])
def test_every_request_is_written_whole_and_in_its_own_name(shrinks):
    sizes: list[int] = []
    prompts = [(n,) for n in (5, 1, 9, 2, 2, 7)]
    tokens = list(
        decode(
            lambda group, _: Counting(group, shrinks, sizes),
            prompts,
            Sampling(max_tokens=20),
            end_ids=frozenset({END}),
            vocabulary=40,
            context=64,
            top_logits=0,
        )
    )
    for request, (first,) in enumerate(prompts):
        assert [token.id for token in tokens if token.request == request] == list(range(first, -1, -1))
    assert sizes[0] == 6
    assert (sizes[-1] == 1) == shrinks
    assert sizes == sorted(sizes, reverse=True)
