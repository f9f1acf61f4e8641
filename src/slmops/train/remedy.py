"""What to change in a recipe whose training does not fit into the memory: the least that makes it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from slmops.console import size
from slmops.recipe.training import Optimisation
from slmops.train.examples import Example
from slmops.train.settle import Need, Settled, settled


def remedy(
    asked: Optimisation,
    found: Settled,
    need: Need,
    methods: Mapping[str, Need],
    examples: Sequence[Example],
    *,
    can: bool,
    rows: int,
) -> str:
    """The first of these that makes it fit: smaller pieces, activations computed again, both, a method, shorter rows.

    Args:
        asked: the settings as they are given.
        found: what does not fit.
        methods: what it needs by methods that move less, the largest first.
        can, rows: see `settled`.
    """
    words, way = "leave the rest as it is", found
    for words, way in _changes(asked, found, need, methods, can=can, rows=rows):
        if way.fits:
            return f"{words.format(pieces=way.pieces)}: then it needs about {size(way.memory.total)}"
    least = way.memory
    room = found.available - (least.total - least.activations)
    if room > 0:
        # Of one row, activations grow with its length, and are the largest part of what is left.
        length = int(max(map(len, examples)) * room / least.activations)
        longer = sum(len(example) > length for example in examples)
        return f"shorten rows to about {length} tokens ({longer} are longer), and {words}"
    return (
        f"train a smaller model (student.carve.layers), raise freeze_layers (now {asked.freeze_layers}), or close what "
        "else runs on this machine"
    )


def _changes(
    asked: Optimisation, found: Settled, need: Need, methods: Mapping[str, Need], *, can: bool, rows: int
) -> Iterator[tuple[str, Settled]]:
    def way(need: Need, **change: object) -> Settled:
        return settled(asked.model_copy(update=change), need, found.available, can=can, rows=rows)

    whole, kept = asked.accumulate != "auto", can and not found.settings.checkpoint_activations
    fewer = "set accumulate: auto"
    if asked.accumulate not in (1, "auto"):
        fewer = f"divide batch_tokens (now {asked.batch_tokens}) by {{pieces}} and multiply accumulate by it"
    if whole:
        yield fewer, way(need, accumulate="auto")
    if kept:
        yield "set checkpoint_activations: true", way(need, checkpoint_activations=True)
    if whole and kept:
        yield (
            f"set checkpoint_activations: true, and {fewer}",
            way(need, accumulate="auto", checkpoint_activations=True),
        )
    for method, its in methods.items():
        words = f"set method: {method}, accumulate: auto and checkpoint_activations: {str(can).lower()}"
        yield words, way(its, accumulate="auto", checkpoint_activations=can)
