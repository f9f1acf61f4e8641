"""What is read piece by piece, with a cache and padding, is what would be read at once."""

import pytest
import torch

from slmops.models.cached import CachedBatch
from tests.families import FAMILIES, logits, make

PROMPTS = [[3, 4, 5, 6, 7, 8], [9], [20, 3, 21, 4]]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_goes_on_as_the_whole_model_would(family):
    model = make(family)
    texts, batch = [list(prompt) for prompt in PROMPTS], CachedBatch(model, PROMPTS)

    def assert_same() -> None:
        wanted = torch.cat([logits(model, torch.tensor([text]))[:, -1] for text in texts])
        torch.testing.assert_close(batch.logits, wanted, rtol=1e-3, atol=1e-4)

    assert_same()
    for step in range(7):  # beyond a sliding window
        ids = [(5 * step + 7 * row) % 64 for row in range(len(texts))]
        if step == 3:
            texts, ids = [texts[2], texts[0]], [ids[2], ids[0]]
            batch.keep([2, 0])
        batch.advance(ids)
        for text, id in zip(texts, ids, strict=True):
            text.append(id)
        assert_same()
