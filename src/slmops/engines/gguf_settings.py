"""What a GGUF file says of a model besides its weights, and what llama.cpp cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slmops.errors import BadInput

KNOWN = {
    "LlamaForCausalLM": "LLAMA",
    "Qwen2ForCausalLM": "QWEN2",
    "Qwen3ForCausalLM": "QWEN3",
    "Phi3ForCausalLM": "PHI3",
    "Gemma3ForCausalLM": "GEMMA3",
}
"""Architectures and their names in `gguf.MODEL_ARCH`; SmolLM is a Llama."""

_GEMMA_PERIOD = 6
"""llama.cpp takes every sixth layer of a Gemma 3 for one that attends to all."""

_HINT = "set compress.runtime: onnxruntime-genai"

Config = Mapping[str, Any]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Described:
    """A model for llama.cpp.

    Attributes:
        arch: of `gguf.MODEL_ARCH`.
        values: keys of the file.
        tensors: that are no weights: factors of rotary positions.
        turned: a module's values as llama.cpp has them, by its name.
    """

    arch: Any
    values: Mapping[str, str | int | float]
    tensors: Mapping[str, Array]
    turned: Callable[[str, Array], Array]


def described(config: Config) -> Described:
    """What a Hugging Face configuration comes to.

    Raises:
        BadInput: the architecture is not known, or it has what llama.cpp does not.
    """
    import gguf

    (kind,) = config.get("architectures") or [None]
    if kind not in KNOWN:
        raise BadInput(f"{kind} is not written as GGUF", hint=f"known: {', '.join(KNOWN)}")
    _refuse_windows(config, kind)
    arch = getattr(gguf.MODEL_ARCH, KNOWN[kind])
    name, size = gguf.MODEL_ARCH_NAMES[arch], _head_size(config)
    positions, tensors = _positions(config, name, size)
    values = {
        "tokenizer.ggml.model": "none",
        f"{name}.vocab_size": config["vocab_size"],
        f"{name}.context_length": config["max_position_embeddings"],
        f"{name}.embedding_length": config["hidden_size"],
        f"{name}.feed_forward_length": config["intermediate_size"],
        f"{name}.block_count": config["num_hidden_layers"],
        f"{name}.attention.head_count": config["num_attention_heads"],
        f"{name}.attention.head_count_kv": config["num_key_value_heads"],
        f"{name}.attention.key_length": size,
        f"{name}.attention.value_length": size,
        f"{name}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
    }
    return Described(arch, values | positions, tensors, _turn(config, kind))


def _head_size(config: Config) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _refuse_windows(config: Config, kind: str) -> None:
    kinds = config.get("layer_types") or []
    if kind == "Gemma3ForCausalLM":
        usual = ["full_attention" if (i + 1) % _GEMMA_PERIOD == 0 else "sliding_attention" for i in range(len(kinds))]
        if kinds != usual:
            raise BadInput(f"llama.cpp runs a Gemma 3 whose every sixth layer attends to all, not {kinds}", hint=_HINT)
        if config["query_pre_attn_scalar"] != _head_size(config):
            raise BadInput(
                f"llama.cpp scales attention of a Gemma 3 by its heads' {_head_size(config)} features, not by "
                f"query_pre_attn_scalar {config['query_pre_attn_scalar']}",
                hint=_HINT,
            )
        if config.get("attn_logit_softcapping") or config.get("final_logit_softcapping"):
            raise BadInput("llama.cpp caps no logits of a Gemma 3", hint=_HINT)
    elif "sliding_attention" in kinds or (kind == "Phi3ForCausalLM" and config.get("sliding_window")):
        raise BadInput(f"llama.cpp runs no {kind} with layers that attend to a window alone", hint=_HINT)


def _positions(config: Config, name: str, size: int) -> tuple[dict[str, str | int | float], dict[str, Array]]:
    """Keys and tensors of rotary positions.

    Raises:
        BadInput: they are scaled as llama.cpp cannot be told.
    """
    rotary = config["rope_parameters"]
    values: dict[str, str | int | float] = {}
    if whole := rotary.get("full_attention"):
        sliding = rotary["sliding_attention"]
        values[f"{name}.attention.sliding_window"] = config["sliding_window"]
        values[f"{name}.rope.freq_base_swa"] = float(sliding["rope_theta"])
        if any(each["rope_type"] != "default" for each in (whole, sliding)):
            raise BadInput("rotary positions of several kinds of layer are written as GGUF unscaled alone", hint=_HINT)
        rotary = whole
    share = rotary.get("partial_rotary_factor") or 1.0
    values |= {f"{name}.rope.freq_base": float(rotary["rope_theta"]), f"{name}.rope.dimension_count": int(size * share)}
    if rotary["rope_type"] == "default":
        return values, {}
    if rotary["rope_type"] == "longrope":
        return values | _long(config, rotary, name), {
            f"rope_factors_{which}.weight": np.array(rotary[f"{which}_factor"], dtype=np.float32)
            for which in ("long", "short")
        }
    if rotary["rope_type"] == "llama3":
        return values, {"rope_freqs.weight": _llama3(config)}
    raise BadInput(f"rotary positions scaled as {rotary['rope_type']} are not written as GGUF", hint=_HINT)


def _long(config: Config, rotary: Config, name: str) -> dict[str, str | int | float]:
    """Of positions with factors for short and for long texts (Ding et al. 2024, LongRoPE)."""
    before = int(rotary["original_max_position_embeddings"])
    grown = config["max_position_embeddings"] / before
    factor = rotary.get("attention_factor") or (
        1.0 if grown <= 1 else float(np.sqrt(1 + np.log(grown) / np.log(before)))
    )
    return {
        f"{name}.rope.scaling.type": "longrope",
        f"{name}.rope.scaling.original_context_length": before,
        f"{name}.rope.scaling.attn_factor": factor,
    }


def _llama3(config: Config) -> Array:
    """By how much each frequency is divided: what the library that trained it makes of it, over the plain one."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    size, theta = _head_size(config), config["rope_parameters"]["rope_theta"]
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**config), device="cpu")
    plain = 1.0 / theta ** (np.arange(0, size, 2, dtype=np.float32) / size)
    factors: Array = (plain / scaled.numpy()).astype(np.float32)
    return factors


def _turn(config: Config, kind: str) -> Callable[[str, Array], Array]:
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}

    def llama(module: str, array: Array) -> Array:
        """Rotary pairs lie side by side in llama.cpp's Llama, and in halves of a head here."""
        if (count := heads.get(module.rsplit(".", 1)[-1])) is None:
            return array
        halves = array.reshape(count, 2, len(array) // count // 2, *array.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))

    def gemma(module: str, array: Array) -> Array:
        """A norm multiplies by one more than its weights say."""
        return array + 1 if module.endswith("norm") else array

    return {"LlamaForCausalLM": llama, "Gemma3ForCausalLM": gemma}.get(kind, lambda _, array: array)
