"""Small tokenizers of the kinds that models come with: they cut the same text at other places."""

from __future__ import annotations

import json
from functools import cache

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from slmops.models.chat_template import CHATML, PLAIN
from slmops.models.tokenizer import Tokenizer

KINDS = ("bytes", "gemma", "phi3")
"""BPE over bytes (GPT-2, SmolLM2, Qwen), over characters with byte fallback, and the same with a space put in front."""

TEXTS = [
    "where is my order, it should have arrived on Monday",
    "cancel the blue lamp, order BL-48213, I paid 39.90",
    '{"intent":"order_late","order":"4711"} {"intent":"refund","amount":"20"}',
    "refund other thanks hello, my name is Anna Berg and I live in Lisbon",
]


@cache
def tokenizer(kind: str) -> Tokenizer:
    """One of `KINDS`, with a template: ChatML, or a message a line."""
    if kind == "bytes":
        backend = _over_bytes()
        roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
        return Tokenizer(backend, template=CHATML, special_tokens=roles)
    return Tokenizer(_over_characters(kind), template=PLAIN, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})


def _over_bytes() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def _over_characters(kind: str) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))  # noqa: S106 - no password
    space, steps = normalizers.Replace(" ", "▁"), [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "gemma":
        backend.normalizer = space
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
        steps.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(steps)
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    content = json.loads(backend.to_str())
    first = len(content["model"]["vocab"])
    content["model"]["vocab"] |= {f"<0x{byte:02X}>": first + byte for byte in range(256)}
    content["model"]["byte_fallback"] = True
    return tokenizers.Tokenizer.from_str(json.dumps(content))
