"""A low-rank update in one operation is the update that it was."""

from __future__ import annotations

import pytest
import torch

from slmops.models.adapters.attach import attach
from slmops.models.adapters.fused import fuse_updates
from slmops.recipe.tuning import Adapter
from tests.families import IDS, make

LORA = Adapter(method="lora", rank=4, alpha=8, dropout=0.0)


def with_update(adapter: Adapter, *, fused: bool, family: str = "llama") -> tuple[torch.nn.Module, int]:
    """A model with an update that is not nothing any more."""
    torch.manual_seed(0)
    model = make(family)
    attach(model, adapter)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return model, fuse_updates(model) if fused else 0


# Qwen2's queries, keys and values have biases.
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gemma3"])
def test_outputs_and_gradients_are_the_same(family):
    found = []
    for fused in (False, True):
        model, count = with_update(LORA, fused=fused, family=family)
        logits = model(input_ids=IDS).logits
        logits.logsumexp(-1).sum().backward()
        moved = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
        found.append((logits.detach(), moved, count))
    (plain, want, none), (other, got, count) = found
    assert (none, count) == (0, sum("lora_A" in name for name in want))
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("odd", [{"method": "dora"}, {"dropout": 0.1}])
def test_others_stay(odd):
    assert with_update(LORA.model_copy(update=odd), fused=True)[1] == 0


def test_a_merged_one_is_a_plain_map():
    model, _ = with_update(LORA, fused=True)
    model.eval()
    want = model(input_ids=IDS).logits
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.merge()
    torch.testing.assert_close(model(input_ids=IDS).logits, want, rtol=1e-4, atol=1e-5)
