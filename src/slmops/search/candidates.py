"""What a search tries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import ValidationError

from slmops.errors import BadInput
from slmops.recipe.compress import PACKED, CompressSettings
from slmops.recipe.search import Tried

VARIED = ("algorithm", "block_size", "head", "int8_layers")
"""Of int4. Of int8 every way to choose values loses next to nothing, and what is not packed has none."""


def candidates(tried: Tried, ships: CompressSettings) -> dict[str, CompressSettings]:
    """Every combination that means something, by its name; what is not varied is as in `ships`.

    Where that recovers, each is tried with recovery and without.

    Raises:
        BadInput: no combination means anything.
    """
    found = {}
    for values in _combined(tried, ships):
        try:
            one = CompressSettings.model_validate(values)
        except ValidationError:
            continue
        found[name_of(one)] = one
    if not found:
        raise BadInput(
            "compress.search.candidates: nothing that is to be tried goes with the rest of compress",
            hint="try another precision or algorithm, or leave the settings out that are only for others",
        )
    return found


def name_of(one: CompressSettings) -> str:
    """Short, and different for different candidates of a search: `int4-gptq-b32-head8`."""
    parts: list[str] = [one.precision]
    if one.precision == "int4":
        parts += [one.algorithm, f"b{one.block_size}", f"head{one.head.removeprefix('int')}"]
        parts += [f"{one.int8_layers}x8"] if one.int8_layers else []
    parts += ["trimmed"] if one.trims else []
    parts += ["recovered"] if one.recover else []
    parts += [one.runtime] if one.runtime != CompressSettings().runtime else []
    return "-".join(parts)


def _combined(tried: Tried, ships: CompressSettings) -> Iterator[Mapping[str, Any]]:
    told = {name: getattr(ships, name) for name in ships.model_fields_set}
    extra = told.pop("extra_tokens", CompressSettings().extra_tokens)
    dimensions = (tried.runtime or [ships.runtime], tried.precision, tried.vocabulary or [ships.vocabulary])
    for runtime, precision, vocabulary in product(*dimensions):
        tokens = {"vocabulary": vocabulary} | ({"extra_tokens": extra} if vocabulary == "trim" else {})
        if precision not in PACKED:
            # What it says of packed weights has no meaning there.
            yield {"precision": precision, "runtime": runtime, **tokens}
            continue
        varied = VARIED if precision == "int4" else ()
        recoveries = (None, ships.recover) if ships.recover else (None,)
        for *values, recover in product(*(getattr(tried, name) for name in varied), recoveries):
            chosen = dict(zip(varied, values, strict=True)) if varied else {"algorithm": "rtn", "int8_layers": 0}
            yield {**told, "runtime": runtime, "precision": precision, **tokens, **chosen, "recover": recover}
