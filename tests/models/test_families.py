"""Depth and vocabulary are cut alike in every family, whatever its layers are called and however they differ."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from slmops.errors import BadInput
from slmops.models.carve import important_layers, keep_layers, keep_tokens
from slmops.models.layers import layers_of
from slmops.models.source import count_parameters, load_model, save_model
from tests.families import FAMILIES, IDS, LAYERS, logits, make, written

families = pytest.mark.parametrize("family", FAMILIES)
CUTS = [[0, 3], [1, 2], [1, 3], [3]]


def without_layers(family: str, kept: list[int]) -> torch.Tensor:
    """Logits of the whole model, in which the other layers add nothing."""
    model = make(family)
    with torch.no_grad():
        for i, layer in enumerate(model.get_decoder().layers):
            if i not in kept:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
    return logits(model)


@families
@pytest.mark.parametrize("kept", CUTS, ids=str)
def test_fewer_layers_are_the_whole_model_with_the_others_idle(family, kept, tmp_path):
    model = make(family)
    before, kinds = count_parameters(model), getattr(model.config, "layer_types", None)
    of_layer = [sum(weight.numel() for weight in layer.parameters()) for layer in model.get_decoder().layers]
    keep_layers(model, kept)
    torch.testing.assert_close(logits(model), without_layers(family, kept), rtol=1e-4, atol=1e-5)
    assert before - count_parameters(model) == sum(of_layer) - sum(of_layer[i] for i in kept)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.config.num_hidden_layers == len(kept)
    assert kinds is None or loaded.config.layer_types == [kinds[i] for i in kept]


@families
def test_a_cut_model_writes_with_its_cache_what_it_writes_without(family):
    model = make(family)
    keep_layers(model, [1, 2])
    cached = model.generate(IDS[:1], max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert cached[0, IDS.shape[1] :].tolist() == written(model, IDS[:1], 5)


@families
def test_weighing_sees_each_layer_really_missing_and_leaves_the_model_whole(family):
    model = make(family)
    before, wanted = copy.deepcopy(model.config.to_dict()), logits(model)
    seen: list[float] = []

    def loss() -> float:
        seen.append(float((logits(model) - wanted).pow(2).mean()))
        return seen[-1]

    kept = important_layers(model, LAYERS - 1, loss)
    assert model.config.to_dict() == before
    assert torch.equal(logits(model), wanted)
    real = []
    for missing in range(LAYERS):
        cut = make(family)
        keep_layers(cut, [i for i in range(LAYERS) if i != missing])
        real.append(float((logits(cut) - wanted).pow(2).mean()))
    # After each of them the layer itself is run once more, to replay what it puts out.
    assert seen[::2] == pytest.approx(real, rel=1e-3)
    assert set(range(LAYERS)) - set(kept) == {real.index(min(real))}


@families
def test_kept_tokens_keep_their_logits_in_a_model_that_is_read_again(family, tmp_path):
    kept = [1, 2, *range(3, 26), 40, 63]
    new = {old: position for position, old in enumerate(kept)}
    model = make(family)
    wanted, before = logits(model)[..., kept], count_parameters(model)
    keep_tokens(model, kept)
    ids = torch.tensor([[new[int(i)] for i in row] for row in IDS])
    torch.testing.assert_close(logits(model, ids), wanted, rtol=1e-4, atol=1e-5)
    matrices = 1 if model.config.tie_word_embeddings else 2
    assert before - count_parameters(model) == matrices * (64 - len(kept)) * model.config.hidden_size
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)
    save_model(model, tmp_path)
    assert torch.equal(logits(load_model(tmp_path), ids), logits(model, ids))


def test_a_model_of_text_and_pictures_is_refused():
    text = make("gemma3").config.to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    with pytest.raises(BadInput, match="cannot be cut") as error:
        layers_of(Gemma3ForConditionalGeneration(config))
    assert "text model" in error.value.hint
