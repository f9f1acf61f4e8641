"""The vocabulary of a tokenizer as GGUF has it, where llama.cpp can cut texts as the model learned them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CUTS: Mapping[tuple[str, ...], str] = {
    (GPT_2,): "gpt-2",
    ("digits", GPT_2): "smollm",
    (_LLAMA_3,): "llama-bpe",
    (_QWEN,): "qwen2",
    (_GPT_4O,): "gpt-4o",
}
"""How a text is cut before its pieces are merged, and what llama.cpp calls that."""

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, `gguf.TokenType`."""


def vocabulary(tokenizer: Tokenizer, size: int) -> dict[str, Any]:
    """Keys of a GGUF file and their values.

    Args:
        size: rows of the embedding; those without a token get one that nobody writes.

    Raises:
        BadInput: llama.cpp has nothing of this kind.
    """
    told = json.loads(tokenizer.backend.to_str())
    model = told["model"]
    if model["type"] != "BPE":
        raise BadInput(f"the tokenizer is {model['type']}, and GGUF is written of BPE alone")
    tokens, kinds = _tokens(tokenizer, told, size)
    keys: dict[str, Any] = {"tokens": tokens, "token_type": kinds}
    if model.get("byte_fallback"):
        keys |= _over_characters(told, tokens)
    else:
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        keys |= {"model": "gpt2", "pre": _cut(told), "merges": merges}
    keys |= _ends(tokenizer) | {"add_bos_token": False, "add_eos_token": False}
    named = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    return named | {"tokenizer.chat_template": tokenizer.template}


def _tokens(tokenizer: Tokenizer, told: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    tokens, kinds = [f"<unused_{id}>" for id in range(size)], [_UNUSED] * size
    for token, id in told["model"]["vocab"].items():
        tokens[id], kinds[id] = token, _NORMAL
        if told["model"].get("byte_fallback") and token.startswith("<0x") and len(token) == 6:
            kinds[id] = _BYTE
    control = set(tokenizer.control_tokens)
    for added in told["added_tokens"]:
        content, id = added["content"], added["id"]
        tokens[id], kinds[id] = content, _CONTROL if content in control else _USER_DEFINED
    unknown = told["model"].get("unk_token")
    if unknown in told["model"]["vocab"]:
        kinds[told["model"]["vocab"][unknown]] = _UNKNOWN
    return tokens, kinds


def _over_characters(told: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    """Of a BPE with byte fallback, which was SentencePiece's: the earlier a merge, the higher its token scores."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(told["model"]["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    normaliser = json.dumps(told.get("normalizer") or {})
    keys: dict[str, Any] = {
        "model": "llama",
        "pre": "default",
        "scores": [-float(ranks.get(token, 0)) for token in tokens],
        "add_space_prefix": '"Prepend"' in normaliser,
    }
    unknown = told["model"]["vocab"].get(told["model"].get("unk_token"))
    return keys if unknown is None else keys | {"unknown_token_id": unknown}


def _cut(told: Mapping[str, Any]) -> str:
    """What llama.cpp calls the way in which texts are cut.

    Raises:
        BadInput: it knows none like it.
    """
    pre = told.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    found: list[str] = []
    for step in steps:
        kind = step.get("type")
        if kind == "Digits" and step["individual_digits"]:
            found.append("digits")
        elif kind == "Split" and step["behavior"] == "Isolated" and "Regex" in step["pattern"]:
            found.append(step["pattern"]["Regex"])
        elif kind == "ByteLevel" and not step["add_prefix_space"]:
            found += [GPT_2] * bool(step["use_regex"])
        else:
            raise BadInput(f"llama.cpp cuts no texts as {kind} does")
    if tuple(found) not in CUTS:
        raise BadInput(f"llama.cpp cuts no texts as this tokenizer does: {' then '.join(found) or 'not at all'}")
    return CUTS[tuple(found)]


def _ends(tokenizer: Tokenizer) -> dict[str, int | None]:
    """The end token and another one, if there is another."""
    role = tokenizer.special_tokens.get("eos_token")
    first = tokenizer.backend.token_to_id(role) if role else min(tokenizer.end_ids)
    found = {"eos_token_id": first, "padding_token_id": tokenizer.pad_id}
    if begin := tokenizer.special_tokens.get("bos_token"):
        found["bos_token_id"] = tokenizer.backend.token_to_id(begin)
    if others := sorted(tokenizer.end_ids - {first}):
        found["eot_token_id"] = others[0]
    return found
