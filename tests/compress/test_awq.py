"""Scaling what matters: the model stays what it was, and rounding costs it less."""

from __future__ import annotations

import copy

import pytest
import torch

from slmops.compress.awq import scalables, scale
from slmops.compress.gptq import relative_error
from slmops.compress.layerwise import Walk
from slmops.errors import BadInput
from slmops.models.layers import layers_of
from slmops.models.rounding import Grid
from slmops.models.width import width_of
from slmops.progress import Silent
from tests.families import FAMILIES, IDS, logits, make

TEXTS = [IDS[0].tolist(), IDS[1].tolist()]
GRID = Grid(4, 16)


def uneven(family: str) -> torch.nn.Module:
    """A model some of whose channels are far larger than others, as in trained ones."""
    model = make(family)
    with torch.no_grad():
        for layer in layers_of(model):
            for module in layer.module.modules():
                if isinstance(module, torch.nn.Linear):
                    module.weight[::7] *= 3
            layer.module.input_layernorm.weight[::9] *= 8
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_computes_what_it_did(family):
    model = uneven(family)
    before, weights = logits(model), copy.deepcopy(model.state_dict())
    figures = scale(model, TEXTS, GRID, Silent(), int8_layers=[2])
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-3)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, weights[name])}
    assert {name.split("layers.")[1][0] for name in changed} == {"0", "1", "3"}
    assert figures["awq_error"] < 0.9 * figures["awq_error_unscaled"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_map_of_a_layer_is_scaled_by_what_it_reads(family):
    model = make(family)
    layer = layers_of(model)[0].module
    maps = [linear for each in scalables(layer, width_of(model)) for linear in each.maps]
    assert len(maps) == len(set(maps))
    assert set(maps) == {module for module in layer.modules() if isinstance(module, torch.nn.Linear)}


def test_layers_of_another_make_are_refused():
    model = make("llama")
    model.model.layers[0].mlp.extra = torch.nn.Linear(4, 4)
    with pytest.raises(BadInput, match="channels of LlamaForCausalLM cannot be scaled") as error:
        scale(model, TEXTS, GRID, Silent())
    assert "gptq" in (error.value.hint or "")


def test_outputs_change_less_than_by_rounding_to_nearest():
    errors = []
    for scaled in (False, True):
        model = uneven("llama")
        if scaled:
            scale(model, TEXTS, GRID, Silent())
        walk = Walk(model, TEXTS)
        next(iter(walk))
        with torch.no_grad():
            errors.append(sum(relative_error(g.weight, GRID(g.weight), g.curvature) for g in walk.groups()))
    assert errors[1] < 0.9 * errors[0]
