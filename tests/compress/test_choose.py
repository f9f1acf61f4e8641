"""What is pruned, and which layers are worth eight bits."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.compress.gptq import quantise
from slmops.compress.sensitivity import costliest, layer_costs
from slmops.compress.wanda import kept, prune
from slmops.models.layers import layers_of
from slmops.models.rounding import Grid
from slmops.progress import Silent
from slmops.recipe.compress import Sparsity
from tests.families import FAMILIES, IDS, LAYERS, make

TEXTS = [IDS[0].tolist(), IDS[1].tolist()]


def linear_weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [each.weight.detach() for each in module.modules() if isinstance(each, torch.nn.Linear)]


@given(st.integers(1, 6), st.integers(4, 70), st.sampled_from([0.25, 0.5, 0.7]), st.integers(0, 99))
def test_of_each_row_the_least_go(rows, width, share, seed):
    scores = torch.rand(rows, width, generator=torch.Generator().manual_seed(seed))
    stays = kept(scores, Sparsity(share=share))
    assert ((~stays).sum(1) == int(share * width)).all()
    for row, mask in zip(scores, stays, strict=True):
        assert (~mask).sum() == 0 or row[~mask].max() <= row[mask].min()
    fours = kept(scores, Sparsity(pattern="2:4"))
    for start in range(0, width, 4):
        block, mask = scores[:, start : start + 4], fours[:, start : start + 4]
        assert (mask.sum(1) == (2 if block.shape[1] == 4 else block.shape[1])).all()
        if block.shape[1] == 4:
            assert torch.equal(mask, block >= block.topk(2).values[:, 1:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pattern", ["2:4", "unstructured"])
def test_half_of_every_layer_is_zero_and_stays_so_when_it_is_rounded(family, pattern):
    model = make(family)
    before = copy.deepcopy(model.state_dict())
    figures = prune(model, TEXTS, Sparsity(pattern=pattern), Silent())
    assert figures["pruned_share"] == pytest.approx(0.5)
    assert 0 < figures["pruning_error"] < 0.5
    masks = [weight == 0 for layer in layers_of(model) for weight in linear_weights(layer.module)]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight[weight != 0], before[name][weight != 0])
    quantise(model, TEXTS, Grid(4, 16), Silent())
    rounded = [weight for layer in layers_of(model) for weight in linear_weights(layer.module)]
    assert all((weight[mask] == 0).all() for weight, mask in zip(rounded, masks, strict=True))


def test_what_goes_costs_less_than_what_is_small():
    """Channels that little comes through go first, whatever their weights."""
    quiet = make("llama")
    with torch.no_grad():
        for layer in layers_of(quiet):
            layer.module.input_layernorm.weight[:32] = 1e-3
    prune(quiet, TEXTS, Sparsity(share=0.5), Silent())
    first = layers_of(quiet)[0].module.self_attn.q_proj.weight
    assert (first[:, :32] == 0).float().mean() > 0.95


def test_the_layers_that_rounding_hurts_most_are_found_and_nothing_is_changed():
    model, grid = make("llama"), Grid(4, 16)
    with torch.no_grad():
        for i, layer in enumerate(layers_of(model)):
            for weight in linear_weights(layer.module):
                # Rounded already, but for the second, and the third in part.
                weight.copy_({1: weight, 2: 0.8 * weight + 0.2 * grid(weight)}.get(i, grid(weight)))
    before = copy.deepcopy(model.state_dict())
    costs = layer_costs(model, TEXTS, grid, Silent())
    assert len(costs) == LAYERS
    assert costs[0] < 1e-9 > costs[3]
    assert costliest(costs, 2) == [1, 2]
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert max(layer_costs(model, TEXTS, Grid(8, 16), Silent())) < 0.1 * max(costs)


def test_as_many_layers_as_asked_for_are_taken_from_below():
    assert costliest([0.1, 0.5, 0.2, 0.4], 3) == [1, 2, 3]
    assert costliest([0.1, 0.5], 0) == []
