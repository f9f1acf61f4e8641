"""What a search tries."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from slmops.recipe.compress import CompressSettings
from slmops.recipe.search import Tried

KINDS = {"int4": ("algorithm", "block_size", "head"), "int8": (), "fp32": ()}
"""What is varied of each precision: of int8, every way to choose values loses next to nothing."""


def candidates(tried: Tried, ships: CompressSettings) -> dict[str, CompressSettings]:
    """Every combination by its name, with what is not varied as in `ships`."""
    return {name_of(one): one for one in _combined(tried, ships)}


def name_of(one: CompressSettings) -> str:
    """Short, and different for different candidates of a search: `int4-gptq-b32-head8`."""
    if one.precision != "int4":
        return one.precision
    return f"int4-{one.algorithm}-b{one.block_size}-head{one.head.removeprefix('int')}"


def _combined(tried: Tried, ships: CompressSettings) -> Iterator[CompressSettings]:
    for precision in tried.precision:
        varied = KINDS[precision]
        for values in product(*(getattr(tried, name) for name in varied)):
            yield ships.model_copy(update={"precision": precision, **dict(zip(varied, values, strict=True))})
