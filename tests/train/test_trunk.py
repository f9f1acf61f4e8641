"""Layers that stay as they are: run once, and the same training as if they were run every time."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from slmops.errors import BadInput
from slmops.models.rounding import Grid
from slmops.models.source import load_model
from slmops.recipe.training import Optimisation, Rounding
from slmops.train import trainer, trunk
from slmops.train.collate import collate
from slmops.train.examples import Example
from tests.families import FAMILIES, make

ROWS = [Example((3, 4, 5, 6 + i), tuple(range(20, 22 + i % 5))) for i in range(16)]
SETTINGS = Optimisation(epochs=3, learning_rate=3e-3, batch_tokens=64, precision="fp32", freeze_layers=1)


def test_states_of_the_lower_layers_give_the_same_logits_as_the_whole_model(tiny):
    model = load_model(tiny.folder)
    assert_states_give_the_same(model)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_every_family_keep_their_kind(family, layers):
    assert_states_give_the_same(make(family), layers)


def assert_states_give_the_same(model, layers=1):
    before = copy.deepcopy(model.config.to_dict())
    states = trunk.trunk_states(model, layers, ROWS)
    assert model.config.to_dict() == before
    batch = collate(ROWS, pad=0)
    padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
    with torch.inference_mode():
        whole = model.base_model(
            batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).last_hidden_state
        with trunk.only_layers(model, slice(layers, None)):
            upper = model.base_model(
                inputs_embeds=padded, attention_mask=batch["attention_mask"], use_cache=False
            ).last_hidden_state
    read = batch["attention_mask"].bool()
    torch.testing.assert_close(upper[read], whole[read], rtol=1e-4, atol=1e-5)


def test_training_above_kept_states_is_training_above_still_layers(tiny, tmp_path, monkeypatch):
    kept = trainer.train(tiny.folder, ROWS, SETTINGS, work=tmp_path / "kept", seed=1).model
    monkeypatch.setattr(trunk, "MAX_STATES_BYTES", 0)
    run = trainer.train(tiny.folder, ROWS, SETTINGS, work=tmp_path / "run", seed=1).model
    before = AutoModelForCausalLM.from_pretrained(tiny.folder).state_dict()
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, run.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)
        moved = name.startswith(("model.layers.1.", "model.norm."))
        assert torch.equal(value, before[name]) != moved, name


def test_still_layers_are_on_the_grid_too(tiny, tmp_path):
    rounding = Rounding(block_size=16, head="int4")
    model = trainer.train(tiny.folder, ROWS, SETTINGS, rounding=rounding, work=tmp_path, seed=1).model
    for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"):
        weight = model.state_dict()[name]
        torch.testing.assert_close(Grid(4, 16)(weight), weight, rtol=1e-5, atol=0, msg=name)


def test_no_layer_left_to_train_is_refused(tiny, tmp_path):
    settings = SETTINGS.model_copy(update={"freeze_layers": 2})
    with pytest.raises(BadInput, match="freeze_layers 2 leaves nothing to train: the model has 2 layers"):
        trainer.train(tiny.folder, ROWS, settings, work=tmp_path, seed=1)
