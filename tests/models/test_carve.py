from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from slmops.errors import BadInput
from slmops.models.carve import evenly_spaced, important_layers, keep_layers, keep_tokens


def llama(layers: int = 6, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=[2, 7],
        pad_token_id=9,
    )
    return LlamaForCausalLM(config).eval()


IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])


@given(st.integers(2, 60), st.data())
def test_evenly_spaced_layers(layers, data):
    keep = data.draw(st.integers(2, layers))
    chosen = evenly_spaced(layers, keep)
    assert (chosen[0], chosen[-1], len(set(chosen))) == (0, layers - 1, keep)
    gaps = [b - a for a, b in pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 1


def test_layers_that_do_nothing_go_first():
    model = llama()
    for idle in (1, 4):
        layer = model.model.layers[idle]
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    with torch.no_grad():
        for busy in (0, 2, 3, 5):
            for weight in model.model.layers[busy].parameters():
                weight.mul_(8)
        wanted = model(IDS).logits

        def loss() -> float:
            return float((model(IDS, use_cache=False).logits - wanted).pow(2).mean())

        kept = important_layers(model, 4, loss)
    assert kept == [0, 2, 3, 5]
    assert len(model.model.layers) == 6, "weighing must leave the model whole"
    torch.testing.assert_close(model(IDS).logits, wanted)


def test_replaying_layers_changes_no_loss():
    """The losses of the first round are those of models with one layer really missing."""
    model = llama(4)
    with torch.no_grad():
        wanted = model(IDS).logits
        seen: list[float] = []

        def loss() -> float:
            seen.append(float((model(IDS, use_cache=False).logits - wanted).pow(2).mean()))
            return seen[-1]

        important_layers(model, 3, loss)
        for missing in range(4):
            cut = llama(4)
            keep_layers(cut, [i for i in range(4) if i != missing])
            real = float((cut(IDS, use_cache=False).logits - wanted).pow(2).mean())
            assert any(abs(real - value) < 1e-6 * max(1, real) for value in seen)


def test_a_cut_model_still_writes_with_its_cache():
    model = llama()
    keep_layers(model, [0, 3, 5])
    assert model.config.num_hidden_layers == 3
    step = model.generate(IDS, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    whole = IDS
    for _ in range(5):
        whole = torch.cat([whole, model(whole, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert step.tolist() == whole.tolist()


def test_layers_out_of_range_are_refused():
    with pytest.raises(BadInput, match="0 to 5"):
        keep_layers(llama(), [0, 6])


@pytest.mark.parametrize("tied", [True, False])
def test_kept_tokens_keep_their_logits(tied):
    model = llama(tied=tied)
    kept = [1, 2, 3, 4, 5, 6, 7, 8, 9, 40]
    new = {old: position for position, old in enumerate(kept)}
    with torch.no_grad():
        before = model(IDS).logits[..., kept]
        keep_tokens(model, kept)
        after = model(torch.tensor([[new[int(i)] for i in IDS[0]]])).logits
    torch.testing.assert_close(after, before)
    assert (model.config.vocab_size, model.config.eos_token_id, model.config.pad_token_id) == (10, [1, 6], 8)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
