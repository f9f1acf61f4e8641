"""A narrower model computes what the whole one does without the heads and channels that it lost."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GptOssConfig, GptOssForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from slmops.errors import BadInput
from slmops.models.source import count_parameters, load_model, save_model
from slmops.models.width import check_width, keep_channels, keep_heads, width_of
from tests.families import CHANNELS, FAMILIES, GROUPS, IDS, LAYERS, QUERIES, logits, make, written

# In every family so many heads may be kept of the 4; other numbers may break a rule of its configuration.
HEADS = {"llama": 2, "qwen2": 3, "qwen3": 3, "phi3": 1, "phi4-mini": 3, "gemma3": 2}

families = pytest.mark.parametrize("family", FAMILIES)


def without_heads(model: PreTrainedModel, kept: list[list[int]]) -> PreTrainedModel:
    """The whole model, in which the other heads say nothing."""
    for layer, groups in zip(model.get_decoder().layers, kept, strict=True):
        gone = [group for group in range(GROUPS) if group not in groups]
        with torch.no_grad():
            weight = layer.self_attn.o_proj.weight
            weight.view(weight.shape[0], GROUPS, -1)[:, gone] = 0
    return model


def without_channels(model: PreTrainedModel, kept: list[list[int]]) -> PreTrainedModel:
    """The whole model, in which the other channels say nothing."""
    for layer, channels in zip(model.get_decoder().layers, kept, strict=True):
        gone = [channel for channel in range(CHANNELS) if channel not in channels]
        with torch.no_grad():
            layer.mlp.down_proj.weight[:, gone] = 0
    return model


def some(count: int, of: int) -> list[list[int]]:
    """Other numbers in each layer."""
    generator = torch.Generator().manual_seed(3)
    return [sorted(torch.randperm(of, generator=generator)[:count].tolist()) for _ in range(LAYERS)]


@families
def test_fewer_heads_are_the_whole_model_with_those_heads_silent(family, tmp_path):
    kept = some(HEADS[family], GROUPS)
    wanted = logits(without_heads(make(family), kept))
    assert not torch.allclose(wanted, logits(make(family)), atol=1e-3), "the test must see what is gone"
    model = make(family)
    keep_heads(model, kept)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-5)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["num_key_value_heads"] == HEADS[family]
    assert saved["num_attention_heads"] == HEADS[family] * QUERIES
    assert loaded.config.head_dim == width_of(make(family)).head_size == saved["head_dim"]


@families
@settings(max_examples=8)
@given(count=st.integers(1, CHANNELS), data=st.data())
def test_fewer_channels_are_the_whole_model_with_those_channels_silent(family, count, data):
    sets = st.sets(st.integers(0, CHANNELS - 1), min_size=count, max_size=count)
    kept = [sorted(data.draw(sets)) for _ in range(LAYERS)]
    model = make(family)
    keep_channels(model, kept)
    wanted = logits(without_channels(make(family), kept))
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-5)
    assert model.config.intermediate_size == count


@families
def test_a_model_cut_in_both_is_saved_runs_and_has_lost_the_weights(family, tmp_path):
    model = make(family)
    width, hidden, before = width_of(model), model.config.hidden_size, count_parameters(model)
    keep_heads(model, some(HEADS[family], GROUPS))
    keep_channels(model, some(32, CHANNELS))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    rows = (GROUPS - HEADS[family]) * (QUERIES + 2) * width.head_size
    columns = (GROUPS - HEADS[family]) * QUERIES * width.head_size
    biases = rows if family == "qwen2" else 0
    gone = LAYERS * ((rows + columns) * hidden + biases + 3 * (CHANNELS - 32) * hidden)
    assert before - count_parameters(model) == gone
    assert count_parameters(loaded) == count_parameters(model)
    assert (width_of(loaded).groups, width_of(loaded).queries) == (HEADS[family], QUERIES)
    cached = loaded.generate(IDS[:1], max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert cached[0, IDS.shape[1] :].tolist() == written(loaded, IDS[:1], 6)


@families
def test_a_model_that_keeps_everything_is_the_same_to_the_bit(family):
    model = make(family)
    before = copy.deepcopy(model.config.to_dict())
    keep_heads(model, [list(range(GROUPS))] * LAYERS)
    keep_channels(model, [list(range(CHANNELS))] * LAYERS)
    assert torch.equal(logits(model), logits(make(family)))
    assert model.config.to_dict() == before | {"head_dim": width_of(model).head_size}


@pytest.mark.parametrize(
    ("family", "heads", "fits"),
    [
        ("llama", 3, "1, 2, 4"),  # 6 heads do not divide 64, which its configuration asks for
        ("gemma3", 3, "1, 2, 4"),
        ("phi4-mini", 2, "3, 4"),  # rotary factors for heads of another size
        ("llama", 5, "1, 2, 4"),
        ("qwen3", 5, "1, 2, 3, 4"),
        ("qwen3", 0, "1, 2, 3, 4"),
    ],
)
def test_heads_that_do_not_fit_are_refused_with_those_that_do(family, heads, fits):
    with pytest.raises(BadInput, match=f"{heads} key-value heads do not fit") as error:
        check_width(make(family), heads=heads, channels=None)
    assert error.value.hint == f"student.carve.heads can be {fits}, or null to keep all"


@families
def test_what_is_said_to_fit_can_be_saved_and_read_and_nothing_else(family, tmp_path):
    with pytest.raises(BadInput) as error:
        check_width(make(family), heads=GROUPS + 1, channels=None)
    fits = [int(word.strip(",")) for word in error.value.hint.split() if word.strip(",").isdigit()]
    for heads in fits:
        model = make(family)
        keep_heads(model, [list(range(heads))] * LAYERS)
        save_model(model, tmp_path / str(heads))
        assert load_model(tmp_path / str(heads)).config.num_key_value_heads == heads
    for heads in set(range(1, GROUPS + 1)) - set(fits):
        with pytest.raises(BadInput):
            keep_heads(make(family), [list(range(heads))] * LAYERS)


@pytest.mark.parametrize("channels", [0, CHANNELS + 1])
def test_more_channels_than_there_are_are_refused(channels):
    with pytest.raises(BadInput, match=f"{channels} channels do not fit: a layer of the model has {CHANNELS}") as error:
        check_width(make("llama"), heads=None, channels=channels)
    assert error.value.hint == f"set student.carve.channels to 1 to {CHANNELS}"


@pytest.mark.parametrize(
    "kept", [[[0]] * 3, [[0]] * 3 + [[0, 1]], [[]] * 4, [[1, 0]] * 4, [[0, 0]] * 4, [[-1]] * 4, [[CHANNELS]] * 4]
)
def test_numbers_that_name_no_parts_are_refused(kept):
    model = make("llama")
    with pytest.raises(BadInput, match="must be"):
        keep_channels(model, kept)
    with pytest.raises(BadInput, match="must be"):
        keep_heads(model, kept)
    assert torch.equal(logits(model), logits(make("llama"))), "a refused cut leaves the model whole"


SMALL = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
HEADS_OF_TWO = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1}


@pytest.mark.parametrize(
    "model",
    [
        lambda: MixtralForCausalLM(MixtralConfig(**SMALL, **HEADS_OF_TWO)),
        lambda: GptOssForCausalLM(GptOssConfig(**SMALL, **HEADS_OF_TWO, layer_types=["full_attention"])),
    ],
    ids=["experts", "attention sinks"],
)
def test_layers_that_are_built_otherwise_are_refused(model):
    with pytest.raises(BadInput, match="cannot be cut in width") as error:
        check_width(model(), heads=1, channels=None)
    assert "leave student.carve.heads" in error.value.hint
