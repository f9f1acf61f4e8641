"""Four-bit weights that make up for each other's rounding: GPTQ (Frantar et al. 2023, algorithm 1).

Rounding to nearest errs in each weight by itself. Here the weights of a row are rounded one after the other, and those
still to come move so that what the row puts out on real texts changes least. The result lies on the grid of
`to_int4_grid`, so an exporter that rounds to nearest ships exactly these weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from slmops.models.layers import layers_of, only_layers
from slmops.models.rounding import LEVELS, scales
from slmops.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DAMPING = 0.01
"""Share of the mean curvature that is added to every direction (section 3.3 of the paper)."""

_BATCH_TOKENS = 2048
_CHUNK = 128
"""Columns after which what they owe is passed on to all later ones at once; a multiple of every block size."""


@torch.no_grad()
def quantise(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], block_size: int, progress: Progress
) -> dict[str, float]:
    """Put the linear weights of all layers on the int4 grid, in place, layer after layer from the lowest.

    Each layer is measured on what the layers below it, rounded already, make of the texts. Embeddings, norms and head
    stay as they are.

    Args:
        model: float32, in evaluation mode.
        texts: token ids that the model is to be measured on.

    Returns:
        `calibration_tokens`, and `rounding_error`: the mean of ‖x(W - Q)ᵀ‖² / ‖xWᵀ‖² over what layers read.
    """
    batches = [(ids.to(model.device), mask.to(model.device)) for ids, mask in _batches(texts)]
    embed = model.get_input_embeddings()
    states = [embed(ids) for ids, _ in batches]
    errors: list[float] = []
    layers = [layer.module for layer in layers_of(model)]
    with progress.task("round layers to int4", len(layers), "layers") as task:
        for i, layer in enumerate(layers):
            with _alone(model, i) as run, _Curvatures(layer) as seen:
                for state, (_, mask) in zip(states, batches, strict=True):
                    seen.mask = mask
                    run(state)
            for maps, curvature in seen.of_maps():
                # Their rows do not touch each other, so those of all maps that read the same go together.
                weight = torch.cat([linear.weight for linear in maps])
                rounded = round_to_grid(weight, curvature, block_size)
                errors.append(_relative_error(weight, rounded, curvature))
                sizes = [len(linear.weight) for linear in maps]
                for linear, part in zip(maps, torch.split(rounded, sizes), strict=True):
                    linear.weight.copy_(part)
            with _alone(model, i) as run:
                states = [run(state) for state in states]
            task.advance()
    return {"calibration_tokens": float(sum(map(len, texts))), "rounding_error": sum(errors) / len(errors)}


@torch.no_grad()
def round_to_grid(weight: torch.Tensor, curvature: torch.Tensor, block_size: int) -> torch.Tensor:
    """`weight` [out, in] on the int4 grid, column after column, each error made up for by the columns to come.

    A block's scale is that of its weights when its first column is reached. The weight that set it stays on the lowest
    level whatever its neighbours owe, so that rounding the result to nearest changes nothing.

    Args:
        curvature: float32 [in, in], Σ xᵀx over what came in.
    """
    rest, result = weight.clone(), torch.empty_like(weight)
    passed_on = _passed_on(curvature)
    columns = weight.shape[1]
    for start in range(0, columns, _CHUNK):
        end = min(start + _CHUNK, columns)
        owed = weight.new_empty(weight.shape[0], end - start)
        for i in range(start, end):
            if i % block_size == 0:
                scale, set_by = scales(rest[:, i : min(i + block_size, columns)])
                inverse = torch.where(scale == 0, 0.0, 1 / scale)
            level = (rest[:, i] * inverse).round_().clamp_(-LEVELS, LEVELS - 1)
            level[set_by == i % block_size] = -LEVELS
            result[:, i] = level * scale
            owed[:, i - start] = (rest[:, i] - result[:, i]) / passed_on[i, i]
            rest[:, i + 1 : end] -= owed[:, i - start, None] * passed_on[i, i + 1 : end]
        rest[:, end:] -= owed @ passed_on[start:end, end:]
    return result


def _passed_on(curvature: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the inverse: row i holds how the error of column i is shared out to later ones."""
    damped = curvature.double()
    # A channel that nothing ever came through has no curvature; any will do.
    mean = float(damped.diagonal().mean()) or 1.0
    damped += _DAMPING * mean * torch.eye(len(damped), dtype=damped.dtype, device=damped.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _relative_error(weight: torch.Tensor, rounded: torch.Tensor, curvature: torch.Tensor) -> float:
    def energy(matrix: torch.Tensor) -> float:
        return float(((matrix @ curvature) * matrix).sum())

    return energy(weight - rounded) / max(energy(weight), torch.finfo(torch.float32).tiny)


class _Curvatures:
    """Listens to a layer's linear maps and adds up Σ xᵀx of what comes in; maps that read the same share one sum.

    Attributes:
        mask: bool [rows, length], which tokens of the batch that is about to come in are no padding.
    """

    mask: torch.Tensor

    def __init__(self, layer: torch.nn.Module) -> None:
        self._linear = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
        self._reads: dict[torch.nn.Linear, int] = {}
        self._sums: list[torch.Tensor] = []
        self._given: Any = None

    def __enter__(self) -> _Curvatures:
        self._hooks = [linear.register_forward_pre_hook(self._see) for linear in self._linear]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._given = None

    def _see(self, linear: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(linear, torch.nn.Linear)  # noqa: S101
        if given[0] is self._given:
            self._reads.setdefault(linear, len(self._sums) - 1)
            return
        self._given = given[0]
        here = given[0][self.mask]
        number = self._reads.setdefault(linear, len(self._sums))
        if number == len(self._sums):
            self._sums.append(here.new_zeros(here.shape[1], here.shape[1]))
        self._sums[number].addmm_(here.T, here)

    def of_maps(self) -> Iterator[tuple[list[torch.nn.Linear], torch.Tensor]]:
        """The maps that read the same, with the sum of what they read."""
        for number, curvature in enumerate(self._sums):
            yield [linear for linear, read in self._reads.items() if read == number], curvature


@contextmanager
def _alone(model: PreTrainedModel, layer: int) -> Iterator[Any]:
    """One layer as a function from the states below it to those above, float32 [rows, length, width]."""
    decoder = model.get_decoder()
    norm, decoder.norm = decoder.norm, torch.nn.Identity()
    try:
        with only_layers(model, slice(layer, layer + 1)):
            yield lambda states: decoder(inputs_embeds=states, use_cache=False).last_hidden_state
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
