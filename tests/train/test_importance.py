"""Importance is what a part adds to the stream, over the tokens of the rows and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.train.examples import Example
from slmops.train.importance import measure_importance, most_important
from tests.families import CHANNELS, FAMILIES, GROUPS, LAYERS, make

ROWS = [Example(tuple(range(3, 6 + 2 * i)), (30, 31 + i)) for i in range(11)]
families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_it_is_the_norm_of_what_a_part_adds(family):
    model = make(family)
    seen: dict[str, torch.Tensor] = {}
    layer = model.get_decoder().layers[1]
    for name, module in (("heads", layer.self_attn.o_proj), ("channels", layer.mlp.down_proj)):
        module.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0][0]}))
    found = measure_importance(model, ROWS[3:4])[1]
    heads, channels = (seen[name].clone().double() for name in ("heads", "channels"))
    output, down = (weight.detach().double() for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight))
    per_group = output.shape[1] // GROUPS
    for group in range(GROUPS):
        alone = torch.zeros_like(heads)
        span = slice(group * per_group, (group + 1) * per_group)
        alone[:, span] = heads[:, span]
        assert float(found.groups[group]) == pytest.approx(float((alone @ output.T).norm(dim=-1).mean()), rel=1e-4)
    for channel in range(CHANNELS):
        added = channels[:, channel : channel + 1] * down[:, channel]
        assert float(found.channels[channel]) == pytest.approx(float(added.norm(dim=-1).mean()), rel=1e-4)


@families
def test_padding_does_not_count(family):
    model = make(family)
    together = measure_importance(model, ROWS)
    alone = [measure_importance(model, [row]) for row in ROWS]
    tokens = sum(map(len, ROWS))
    for layer in range(LAYERS):
        for part in ("groups", "channels"):
            mean = sum(getattr(found[layer], part) * len(row) for found, row in zip(alone, ROWS, strict=True)) / tokens
            torch.testing.assert_close(getattr(together[layer], part), mean, rtol=1e-3, atol=1e-6)


@families
def test_parts_that_add_nothing_go_first(family):
    model = make(family)
    with torch.no_grad():
        for layer in model.get_decoder().layers:
            weight = layer.self_attn.o_proj.weight
            weight.view(weight.shape[0], GROUPS, -1)[:, [0, 2]] = 0
            layer.mlp.down_proj.weight[:, 5:] = 0
    for layer in measure_importance(model, ROWS):
        assert most_important(layer.groups, 2) == [1, 3]
        assert most_important(layer.channels, 5) == [0, 1, 2, 3, 4]


def test_measuring_leaves_nothing_behind():
    model = make("llama")
    measure_importance(model, ROWS)
    assert not any(module._forward_pre_hooks for module in model.modules())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.data())
def test_the_highest_are_kept_in_order(scores, data):
    keep = data.draw(st.integers(1, len(scores)))
    kept = most_important(torch.tensor(scores, dtype=torch.float32), keep)
    gone = [i for i in range(len(scores)) if i not in kept]
    assert kept == sorted(set(kept))
    assert len(kept) == keep
    assert all(scores[k] > scores[g] or (scores[k] == scores[g] and k < g) for k in kept for g in gone)
