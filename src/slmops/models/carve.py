"""Cutting a student out of a teacher: which layers stay, and what is left of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.models.layers import Layer, layers_of, set_layers
from slmops.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DROPS_PER_ROUND = 3


def evenly_spaced(layers: int, keep: int) -> list[int]:
    """`keep` of `layers` layer numbers, first and last among them, as evenly as they go."""
    return [round(i * (layers - 1) / max(1, keep - 1)) for i in range(keep)]


def important_layers(
    model: PreTrainedModel, keep: int, loss: Callable[[], float], progress: Progress | None = None
) -> list[int]:
    """The `keep` layers without which the model loses most, found by greedy removal.

    Each round measures the loss without each remaining layer in turn and drops the few that cost least, never two
    neighbours at once: what one of them does the other may be doing too, so their costs do not add up.
    In a small model copying lives in a handful of middle and late layers (induction heads, Olsson et al. 2022),
    which neither the first layers nor evenly spaced ones contain.

    Args:
        loss: runs the model on fixed rows and returns the task's loss.

    Returns:
        Layer numbers, ascending.
    """
    every = layers_of(model)
    kept = list(range(len(every)))
    try:
        with (progress or Silent()).task("weigh layers", len(every) - keep, "layers") as task:
            while len(kept) > keep:
                costs = _losses_without_each(model, [every[i] for i in kept], loss)
                drop = _cheapest_apart(costs, min(DROPS_PER_ROUND, len(kept) - keep))
                kept = [layer for position, layer in enumerate(kept) if position not in drop]
                task.advance(len(drop), loss=min(costs))
    finally:
        set_layers(model, every)
    return kept


def _losses_without_each(model: PreTrainedModel, layers: list[Layer], loss: Callable[[], float]) -> list[float]:
    """The loss without layer i, for each i; the layers before i are computed once and replayed."""
    losses, head = [], list[Layer]()
    for i, layer in enumerate(layers):
        set_layers(model, [*head, *layers[i + 1 :]])
        losses.append(loss())
        tap = _Tap()
        handle = layer.module.register_forward_hook(tap)
        set_layers(model, [*head, layer])
        loss()
        handle.remove()
        head = [_replay(tap.output, layer)]
    return losses


class _Tap:
    """A forward hook that keeps what a layer put out."""

    output: torch.Tensor

    def __call__(self, _module: Any, _arguments: Any, output: Any) -> None:
        self.output = output[0] if isinstance(output, tuple) else output


def _replay(output: torch.Tensor, like: Layer) -> Layer:
    """A layer that puts out `output` whatever it is given; it answers for `like` where masks differ by layer."""
    import torch

    class Replay(torch.nn.Module):
        attention_type = getattr(like.module, "attention_type", "full_attention")

        def forward(self, *_: Any, **__: Any) -> torch.Tensor:
            return output

    return Layer(Replay(), like.entries)


def _cheapest_apart(costs: Sequence[float], count: int) -> set[int]:
    """Positions of up to `count` lowest costs, no two of them neighbours; at least one."""
    chosen: list[int] = []
    for position in sorted(range(len(costs)), key=costs.__getitem__):
        if len(chosen) == count:
            break
        if all(abs(position - other) > 1 for other in chosen):
            chosen.append(position)
    return set(chosen)


def keep_layers(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Remove all other layers from `model`, in place.

    Raises:
        BadInput: a layer number is out of range.
    """
    every = layers_of(model)
    if any(not 0 <= i < len(every) for i in kept):
        last = len(every) - 1
        raise BadInput(f"layers {list(kept)} are out of range: the model has {len(every)} layers, 0 to {last}")
    set_layers(model, [every[i] for i in kept])
    for position, layer in enumerate(layers_of(model)):
        for module in layer.module.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # where the layer finds its own keys and values in a cache


def keep_tokens(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep only the embedding and head rows of the tokens `kept`, in that order, in place; ties stay tied."""
    import torch

    index = torch.tensor(list(kept))
    embeddings = model.get_input_embeddings()
    embeddings.weight = torch.nn.Parameter(embeddings.weight.detach()[index].clone())
    embeddings.num_embeddings = len(kept)
    embeddings.padding_idx = None
    head = model.get_output_embeddings()
    if model.config.tie_word_embeddings:
        head.weight = embeddings.weight
    else:
        head.weight = torch.nn.Parameter(head.weight.detach()[index].clone())
    head.out_features = len(kept)
    for owner in (model.config, model, model.get_decoder()):
        owner.vocab_size = len(kept)
    new = {old: position for position, old in enumerate(kept)}
    for config in (model.config, model.generation_config):
        _rename_tokens(config, new)


def _rename_tokens(config: Any, new: Mapping[int, int]) -> None:
    """Give the tokens that a configuration names their new ids; it no longer names those that are gone."""
    for name, old in list(vars(config).items()):
        if name.endswith("_token_id") and isinstance(old, int):
            setattr(config, name, new.get(old))
        elif (name.endswith("_token_id") or name.endswith("suppress_tokens")) and isinstance(old, list):
            setattr(config, name, [new[i] for i in old if i in new] or None)
