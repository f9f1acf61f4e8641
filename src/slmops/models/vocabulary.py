"""Trimming a byte-level BPE vocabulary to the tokens a task needs, without losing exactness.

A merge is kept exactly when both of its parts and its result are kept, and the kept set is closed under
"is made of". Byte-pair encoding always applies the lowest-ranked merge it can, so a word whose tokens are
all kept meets the same merges in the same order: it is split as before. Any other word falls apart
into smaller kept pieces, in the last resort single bytes, and still decodes to itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from slmops.errors import BadInput


def byte_alphabet() -> list[str]:
    """The 256 characters that byte-level BPE writes bytes as (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    other = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(other))]


def trim_vocabulary(
    tokenizer: dict[str, Any], used: Iterable[int], *, extra: int = 0
) -> tuple[dict[str, Any], list[int]]:
    """Cut a tokenizer down to the tokens in `used`, everything they are made of, and `extra` frequent others.

    Args:
        tokenizer: the content of a `tokenizer.json`.
        used: ids that occur in the data; special tokens and single bytes are always kept.
        extra: further tokens, in order of merge rank, which is their order of frequency in the
            text the tokenizer was made from.

    Returns:
        The smaller `tokenizer.json`, and the kept old ids: new id `i` is old id `kept[i]`.

    Raises:
        BadInput: the tokenizer is not a byte-level BPE.
    """
    _require_byte_level(tokenizer)
    model = tokenizer["model"]
    ids: dict[str, int] = model["vocab"]
    names = {i: name for name, i in ids.items()}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    parts: dict[str, list[tuple[str, ...]]] = {}
    for merge in merges:
        parts.setdefault("".join(merge), []).append(merge)

    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    wanted = [names[i] for i in used if i in names and names[i] not in added]
    wanted += [char for char in byte_alphabet() if char in ids]
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


def _require_byte_level(tokenizer: dict[str, Any]) -> None:
    model = tokenizer.get("model", {})
    if (
        model.get("type") != "BPE"
        or model.get("byte_fallback")
        or "ByteLevel" not in str(tokenizer.get("pre_tokenizer"))
    ):
        raise BadInput(
            f"the vocabulary of this tokenizer cannot be trimmed: it is {model.get('type')}, not a byte-level BPE",
            hint="set student.carve.vocabulary: keep",
        )
