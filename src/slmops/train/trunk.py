"""The lowest layers, where they stay as they are: run once over the rows instead of once per pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from slmops.errors import BadInput
from slmops.models.layers import layers_of, only_layers
from slmops.models.tag_head import tag_head
from slmops.progress import Progress, Silent
from slmops.train.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_STATES_BYTES = 2_000_000_000
"""Larger sets of rows are run through all layers in every pass."""

_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}


def freeze(model: PreTrainedModel, layers: int) -> list[torch.nn.Parameter]:
    """Let the lowest `layers`, the embeddings and the head stay as they are; returns their weights.

    A head that labels moves in any case: it begins with nothing. Nothing below the first moving layer needs a
    gradient, so a step costs there what a forward pass costs.

    Raises:
        BadInput: no layer is left to move.
    """
    if not layers:
        return []
    every = [layer.module for layer in layers_of(model)]
    if layers >= len(every):
        raise BadInput(
            f"freeze_layers {layers} leaves nothing to train: the model has {len(every)} layers",
            hint=f"set it to {len(every) - 1} at most",
        )
    head = [] if tag_head(model) else [model.get_output_embeddings()]
    still = [model.get_input_embeddings(), *head, *every[:layers]]
    weights = {weight: None for module in still for weight in module.parameters()}
    for weight in weights:
        weight.requires_grad_(False)
    return list(weights)


def states_bytes(model: PreTrainedModel, layers: int, examples: Sequence[Example]) -> int:
    """Size of the states that `trunk_states` keeps; 0 where it keeps none."""
    count = sum(map(len, examples)) * model.config.hidden_size * model.dtype.itemsize
    return count if layers and count <= MAX_STATES_BYTES else 0


def trunk_states(
    model: PreTrainedModel, layers: int, examples: Sequence[Example], progress: Progress | None = None
) -> list[torch.Tensor] | None:
    """What the lowest `layers` make of each example: [its tokens, hidden], in the model's dtype.

    None where the states of all examples would need more than `MAX_STATES_BYTES`. The batches depend on the examples
    alone, so a resumed training computes the same bits.
    """
    if not states_bytes(model, layers, examples):
        return None
    tokens = sum(map(len, examples))
    decoder = model.get_decoder()
    states: dict[int, torch.Tensor] = {}
    norm, decoder.norm = decoder.norm, torch.nn.Identity()
    try:
        with (
            torch.inference_mode(),
            only_layers(model, slice(0, layers)),
            (progress or Silent()).task(f"run the {layers} still layers", tokens, "tokens") as task,
        ):
            for batch in batches(examples, model.device.type):
                longest = len(examples[batch[-1]])
                ids = torch.zeros(len(batch), longest, dtype=torch.long, device=model.device)
                for row, i in enumerate(batch):
                    ids[row, : len(examples[i])] = ids.new_tensor(examples[i].prompt + examples[i].answer)
                # No mask: attention is causal, and what stands on the right is not read.
                hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
                states |= {i: hidden[row, : len(examples[i])].clone() for row, i in enumerate(batch)}
                task.advance(sum(len(examples[i]) for i in batch))
    finally:
        decoder.norm = norm
    return [states[i] for i in range(len(examples))]


def batches(examples: Sequence[Example], device: str) -> Iterator[list[int]]:
    """Rows of like length together, shortest first, as many as a device of this type takes at once."""
    batch: list[int] = []
    for i in sorted(range(len(examples)), key=lambda i: len(examples[i])):
        if batch and (len(batch) + 1) * len(examples[i]) > _BATCH_TOKENS[device]:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
