"""What the soak serves unless it is given a bundle: a small model with random weights, which writes on and on."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path

from slmops.bundle import write_bundle
from slmops.models.chat_template import CHATML
from slmops.models.tokenizer import Tokenizer
from slmops.samples.tickets import tickets
from slmops.tasks import Generation

_TOKENS, _CONTEXT = 2000, 1024


def random_bundle(out: Path, *, version: str, seed: int) -> Path:
    """Four layers of 128, in float32, for onnxruntime-genai."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_random(home / "hf", seed=seed)
        _export(home / "hf", home / "onnx", home / "cache")
        task = Generation(None, 64).describe()
        told = {"task": task, "lineage": {}, "evidence": {}, "engine": "onnxruntime-genai"}
        write_bundle(out, name="soak", version=version, model_folder=home / "onnx", **told)
    return out


def _tokenizer() -> Tokenizer:
    """A byte-level BPE of what tickets are written in."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENS, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([row["input"] for row in tickets("train", 2000, 0)], trainer)
    roles = {"bos_token": special[1], "eos_token": special[2], "pad_token": special[2]}
    return Tokenizer(backend, template=CHATML, special_tokens=roles)


def write_random(folder: Path, *, seed: int) -> None:
    """The model as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)


def _export(source: Path, out: Path, cache: Path) -> None:
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    told = (str(source), str(out), "fp32", "cpu", str(cache))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        create_model("", *told, **parse_extra_options("", *told, []))
