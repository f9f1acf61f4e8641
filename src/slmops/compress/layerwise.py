"""Going through a model layer after layer, on the user's texts: what each one is given, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from slmops.models.layers import layers_of, only_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH_TOKENS = 2048

States = list[torch.Tensor]
"""Between two layers, of each batch: float32 [rows, length, width]."""


@dataclass(frozen=True)
class Group:
    """Linear maps of a layer that read the same.

    Attributes:
        curvature: float32 [in, in], Σ xᵀx over the tokens that came in.
        magnitude: float32 [in], the mean of |x| over them.
    """

    maps: list[torch.nn.Linear]
    curvature: torch.Tensor
    magnitude: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """Of all maps, one below the other: their rows do not touch each other."""
        return torch.cat([linear.weight for linear in self.maps])

    def assign(self, weight: torch.Tensor) -> None:
        """Give the maps the rows of `weight`."""
        parts = torch.split(weight, [len(linear.weight) for linear in self.maps])
        for linear, part in zip(self.maps, parts, strict=True):
            linear.weight.copy_(part)


class Walk:
    """The states that texts have below the layer that comes next.

    Attributes:
        number: of that layer.
        layer: its module.
    """

    def __init__(self, model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> None:
        self._model, self._layers = model, [layer.module for layer in layers_of(model)]
        self._batches = [(ids.to(model.device), mask.to(model.device)) for ids, mask in _batches(texts)]
        embed = model.get_input_embeddings()
        self.states: States = [embed(ids) for ids, _ in self._batches]
        self.number = 0

    def __iter__(self) -> Iterator[torch.nn.Module]:
        """Every layer in turn; what it puts out is computed when the next one is asked for, as it is by then."""
        for number, layer in enumerate(self._layers):
            self.number = number
            yield layer
            self.states = self.above(self.states, slice(number, number + 1))

    def groups(self) -> list[Group]:
        """What the maps of the present layer read."""
        with _Listener(self._layers[self.number]) as heard:
            run = slice(self.number, self.number + 1)
            self.above(self.states, run, before=lambda mask: setattr(heard, "mask", mask))
        return heard.groups()

    def above(self, states: States, layers: slice, *, before: Callable[[torch.Tensor], None] | None = None) -> States:
        """What `layers` make of `states`.

        Args:
            before: told of each batch which tokens are no padding, bool [rows, length].
        """
        result = []
        with _without_norm(self._model) as decoder, only_layers(self._model, layers):
            for state, (_, mask) in zip(states, self._batches, strict=True):
                if before:
                    before(mask)
                result.append(decoder(inputs_embeds=state, use_cache=False).last_hidden_state)
        return result

    def tokens(self, states: States) -> torch.Tensor:
        """The states of tokens that are no padding, [tokens, width]."""
        return torch.cat([state[mask] for state, (_, mask) in zip(states, self._batches, strict=True)])


class _Listener:
    """Listens to a layer's linear maps; those that read the same share what is added up.

    Attributes:
        mask: bool [rows, length], which tokens of the batch that is about to come in are no padding.
    """

    mask: torch.Tensor

    def __init__(self, layer: torch.nn.Module) -> None:
        self._linear = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
        self._reads: dict[torch.nn.Linear, int] = {}
        self._sums: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._tokens = 0
        self._given: Any = None

    def __enter__(self) -> _Listener:
        self._hooks = [linear.register_forward_pre_hook(self._hear) for linear in self._linear]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._given = None

    def _hear(self, linear: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(linear, torch.nn.Linear)  # noqa: S101
        if given[0] is self._given:
            self._reads.setdefault(linear, len(self._sums) - 1)
            return
        self._given = given[0]
        here = given[0][self.mask]
        number = self._reads.setdefault(linear, len(self._sums))
        self._tokens += len(here) if number == 0 else 0
        if number == len(self._sums):
            width = here.shape[1]
            self._sums.append((here.new_zeros(width, width), here.new_zeros(width)))
        curvature, magnitude = self._sums[number]
        curvature.addmm_(here.T, here)
        magnitude.add_(here.abs().sum(0))

    def groups(self) -> list[Group]:
        return [
            Group([linear for linear, read in self._reads.items() if read == number], curvature, total / self._tokens)
            for number, (curvature, total) in enumerate(self._sums)
        ]


@contextmanager
def _without_norm(model: PreTrainedModel) -> Iterator[Any]:
    """The decoder, giving back what its last layer puts out."""
    decoder = model.get_decoder()
    norm, decoder.norm = decoder.norm, torch.nn.Identity()
    try:
        yield decoder
    finally:
        decoder.norm = norm


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Texts of like length together, padded on the right where a causal model does not look, and what is no padding."""
    ordered = sorted(texts, key=len)
    while ordered:
        rows = next((n for n in range(1, len(ordered)) if (n + 1) * len(ordered[n]) > _BATCH_TOKENS), len(ordered))
        taken, ordered = ordered[:rows], ordered[rows:]
        ids = torch.zeros(rows, len(taken[-1]), dtype=torch.long)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, text in enumerate(taken):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), True
        yield ids, mask
