"""What a teacher makes of examples that are passed over several times, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from slmops.train.examples import Example

if TYPE_CHECKING:
    from slmops.train.objectives.observe import Inputs


@dataclass(frozen=True)
class States:
    """What a teacher made of one example.

    Attributes:
        first: the first position at which something is said; what stands before is not kept.
        final: what goes into the head, [answer tokens, width], in the teacher's dtype.
        hidden: what chosen layers put out, likewise.
    """

    first: int
    final: torch.Tensor
    hidden: Mapping[int, torch.Tensor]


class Recall:
    """States by the tokens of their example."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], States] = {}

    def keep(self, example: Example, final: torch.Tensor, hidden: Mapping[int, torch.Tensor]) -> None:
        """Keep the states of an example; of two with the same tokens, those that begin earlier hold for both."""
        tokens, first = example.prompt + example.answer, example.predicts.start
        known = self._known.get(tokens)
        if known is None or first < known.first:
            self._known[tokens] = States(first, final, hidden)

    def find(self, inputs: Inputs) -> tuple[torch.Tensor, dict[int, torch.Tensor]] | None:
        """The states at the predicted positions of a batch, in row order, as `keep` was given them; None where an
        example is not known.
        """
        if not self._known:
            return None
        batch = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        known = [self._known.get(tuple(ids[mask.bool()].tolist())) for ids, mask in batch]
        found = [states for states in known if states is not None]
        if len(found) < len(known):
            return None
        device = inputs["input_ids"].device
        places = [
            row.nonzero()[:, 0].cpu() - states.first for row, states in zip(inputs["predicts"], found, strict=True)
        ]

        def gathered(parts: list[torch.Tensor]) -> torch.Tensor:
            return torch.cat([part[at] for part, at in zip(parts, places, strict=True)]).to(device)

        layers = found[0].hidden
        return gathered([states.final for states in found]), {
            layer: gathered([states.hidden[layer] for states in found]).float() for layer in layers
        }
