"""Trimming a BPE vocabulary to the tokens a task needs, without losing exactness.

A merge is kept exactly when both of its parts and its result are kept, and the kept set is closed under
"is made of". Byte-pair encoding always applies the lowest-ranked merge it can, so a word whose tokens are
all kept meets the same merges in the same order: it is split as before. Any other word falls apart
into smaller kept pieces, in the last resort single bytes, and still decodes to itself.

That holds for byte-level BPE (GPT-2, SmolLM2, Qwen), where every symbol is a byte, and for BPE over characters with
byte fallback (Gemma, Phi-3), where a character that is no token is written as the tokens of its bytes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable
from typing import Any

import tokenizers

from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer

_SPACE = "\u2581"
_WORD_MARKS = ("continuing_subword_prefix", "end_of_word_suffix")


def byte_alphabet() -> list[str]:
    """The 256 characters that byte-level BPE writes bytes as (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    other = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(other))]


def trimmed(tokenizer: Tokenizer, used: Collection[int], *, extra: int) -> tuple[Tokenizer, list[int]]:
    """`tokenizer` cut down as of `trim_vocabulary`, with what ends its answers, and the kept old ids."""
    content = json.loads(tokenizer.backend.to_str())
    small, kept = trim_vocabulary(content, {*used, *tokenizer.end_ids}, extra=extra)
    new = {old: position for position, old in enumerate(kept)}
    return Tokenizer(
        tokenizers.Tokenizer.from_str(json.dumps(small)),
        template=tokenizer.template,
        special_tokens=tokenizer.special_tokens,
        end_ids=[new[old] for old in tokenizer.end_ids],
    ), kept


def trim_vocabulary(
    tokenizer: dict[str, Any], used: Iterable[int], *, extra: int = 0
) -> tuple[dict[str, Any], list[int]]:
    """Cut a tokenizer down to the tokens in `used`, everything they are made of, and `extra` frequent others.

    Args:
        tokenizer: the content of a `tokenizer.json`.
        used: ids that occur in the data; added tokens and single bytes are always kept.
        extra: further tokens, in order of merge rank, which is their order of frequency in the
            text the tokenizer was made from.

    Returns:
        The smaller `tokenizer.json`, and the kept old ids: new id `i` is old id `kept[i]`.

    Raises:
        BadInput: the tokenizer is no BPE that can write every byte.
    """
    last_resort = _last_resort(tokenizer)
    model = tokenizer["model"]
    ids: dict[str, int] = model["vocab"]
    names = {i: name for name, i in ids.items()}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    parts: dict[str, list[tuple[str, ...]]] = {}
    for merge in merges:
        parts.setdefault("".join(merge), []).append(merge)

    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    wanted = [names[i] for i in used if i in names and names[i] not in added]
    wanted += last_resort
    kept = _closed(wanted, parts)
    for merge in merges[:]:
        if extra <= 0:
            break
        name = "".join(merge)
        if name not in kept:
            before = len(kept)
            kept |= _closed([name], parts)
            extra -= len(kept) - before

    old = sorted({ids[name] for name in kept} | set(added.values()))
    new = {i: position for position, i in enumerate(old)}
    small = copy.deepcopy(tokenizer)
    small["model"]["vocab"] = {names[i]: new[i] for i in old if i in names}
    small["model"]["merges"] = [list(m) for m in merges if m[0] in kept and m[1] in kept and "".join(m) in kept]
    for token in small["added_tokens"]:
        token["id"] = new[token["id"]]
    # Prompts carry their special tokens in the chat template; nothing is added behind the template's back.
    small["post_processor"] = None
    return small, old


def _closed(names: Iterable[str], parts: dict[str, list[tuple[str, ...]]]) -> set[str]:
    """`names` and every token that one of them is merged from."""
    kept: set[str] = set()
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name not in kept:
            kept.add(name)
            open_ += [part for merge in parts.get(name, ()) for part in merge]
    return kept


def _last_resort(tokenizer: dict[str, Any]) -> list[str]:
    """The tokens that any text falls apart into when it is made of nothing larger."""
    model = tokenizer.get("model", {})
    ids: dict[str, int] = model.get("vocab", {})
    # Marks at the ends of words would make two tokens of each character.
    plain = model.get("type") == "BPE" and not any(model.get(mark) for mark in _WORD_MARKS)
    byte_level = "ByteLevel" in str(tokenizer.get("pre_tokenizer"))
    if plain and byte_level and not model.get("byte_fallback"):
        return [char for char in byte_alphabet() if char in ids]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    decodes = "ByteFallback" in str(tokenizer.get("decoder"))
    if plain and not byte_level and model.get("byte_fallback") and decodes and all(name in ids for name in bytes_):
        # A space is written as a mark that the decoder turns back before it reads bytes: as bytes it would stay a mark.
        return [name for name in (*bytes_, _SPACE, model.get("unk_token")) if name in ids]
    raise BadInput(
        f"the vocabulary of this tokenizer cannot be trimmed: it is {model.get('type')}, not a byte-level BPE or one "
        "with byte fallback",
        hint="keep it whole: set vocabulary: keep",
    )
