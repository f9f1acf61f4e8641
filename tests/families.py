"""Tiny random models of every family that a student can be cut from."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

GROUPS, QUERIES, CHANNELS, LAYERS = 4, 2, 48, 4
"""Key-value heads and query heads of each, channels of a feed-forward part, layers."""

IDS = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [20, 3, 21, 4, 22, 5, 23, 6, 24, 7, 25, 8]])
"""Longer than a sliding window, so that the kind of a layer matters."""

_SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": CHANNELS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": GROUPS * QUERIES,
    "num_key_value_heads": GROUPS,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_SLIDING: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
_PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
_LONG = _PARTIAL | {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2],
    "long_factor": [1.5, 2.0, 2.5],
    "original_max_position_embeddings": 32,
}
_KINDS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]

FAMILIES: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True, **_SLIDING}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16, **_SLIDING}),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"rope_parameters": _PARTIAL}),
    "phi4-mini": (Phi3Config, Phi3ForCausalLM, {"rope_parameters": _LONG, "tie_word_embeddings": True}),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, {"head_dim": 16, "sliding_window": 4, "layer_types": _KINDS}),
}


def make(family: str, **changes: Any) -> PreTrainedModel:
    """The family's model; the same one at every call."""
    config, model, own = FAMILIES[family]
    torch.manual_seed(1)
    made: PreTrainedModel = model(config(**{**_SHAPE, **own, **changes})).eval()
    with torch.no_grad():
        # Norms and biases begin as ones and zeros, which would hide what becomes of them.
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def logits(model: PreTrainedModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


def written(model: PreTrainedModel, prompt: torch.Tensor, count: int) -> list[int]:
    """The `count` tokens that the model writes behind `prompt`, [1, tokens], without a cache; the end is no choice."""
    ids = prompt
    for _ in range(count):
        scores = logits(model, ids)[:, -1].clone()
        scores[:, _SHAPE["eos_token_id"]] = -torch.inf
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
    return ids[0, prompt.shape[1] :].tolist()
