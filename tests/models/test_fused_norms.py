"""Norms in one kernel are the norms that they were."""

from __future__ import annotations

import copy

import pytest
import torch

from slmops.models.fused_norms import fuse_norms
from tests.families import IDS, make


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_they_compute_the_same(family):
    model = make(family).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.normal_()
        want = model(input_ids=IDS).logits
        count = fuse_norms(model)
        found = model(input_ids=IDS).logits
    layers = model.config.num_hidden_layers
    assert count == 1 + layers * (4 if family == "qwen3" else 2)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)


def test_one_that_computes_something_else_stays():
    """Gemma's adds one to the weight; and what a family will do next is not known."""
    assert not fuse_norms(make("gemma3"))
    model = make("llama")
    odd = model.get_decoder().norm
    usual = odd.forward
    odd.forward = lambda states: 2 * usual(states)
    assert fuse_norms(model) == 2 * model.config.num_hidden_layers


def test_a_copy_has_its_own():
    model = make("llama")
    fuse_norms(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        model.get_decoder().norm.weight.zero_()
        assert not model(input_ids=IDS).logits.any()
        assert other(input_ids=IDS).logits.any()
