"""A Llama in a Hugging Face folder as a GGUF file in fp16, which llama.cpp then quantises."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors import safe_open

Matrix = npt.NDArray[Any]

OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder: Path, out: Path) -> None:
    """Write the model in `folder` to `out`, without a tokenizer: it is given tokens.

    Raises:
        SystemExit: it is no Llama.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama":
        raise SystemExit(f"a writer for {config['model_type']} is not there")
    writer = gguf.GGUFWriter(out, "llama")
    describe(writer, config)
    for name, matrix in tensors(folder, config):
        # Norms stay as they are, as llama.cpp's own converter has it.
        writer.add_tensor(name, matrix.astype(np.float32 if matrix.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    rotary = config.get("rope_parameters") or config
    writer.add_rope_freq_base(rotary["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def tensors(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Matrix]]:
    """Every tensor under its name in GGUF; rotary pairs lie side by side there, and in halves here."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                matrix = file.get_tensor(name)
                if name in OUTER:
                    yield OUTER[name], matrix
                    continue
                layer, _, part = name.removeprefix("model.layers.").removesuffix(".weight").partition(".")
                kind = INNER[part]
                yield f"blk.{layer}.{kind}.weight", paired(matrix, heads[kind]) if kind in heads else matrix


def paired(matrix: Matrix, heads: int) -> Matrix:
    """Rows of each head so that the two of a rotary pair are neighbours."""
    halves = matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, matrix.shape[1])
    return halves.swapaxes(1, 2).reshape(matrix.shape)
