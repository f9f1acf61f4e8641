"""Where an adapter goes, found by walking the decoder and not by a list of names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.models.layers import layers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear_layers(model: PreTrainedModel, first: int = 0) -> list[str]:
    """Names of all linear maps of the decoder's layers from number `first` on."""
    return [name for sublayer in _sublayers(model, first) for name in sublayer]


def sublayer_ends(model: PreTrainedModel, first: int = 0) -> list[str]:
    """Of each attention and each feed-forward part, the linear map whose output goes back into the stream."""
    return [sublayer[-1] for sublayer in _sublayers(model, first)]


def rescaled(model: PreTrainedModel, first: int = 0) -> tuple[list[str], list[str]]:
    """Maps whose outputs IA³ rescales, and those whose inputs (Liu et al. 2022, section 3.3).

    Outputs: of attention all but the last, so that fused projections are found too; queries come along, which the
    paper leaves alone. Inputs: of the last one of each feed-forward part.

    Raises:
        BadInput: no layer has an attention part that is called so.
    """
    outputs, inputs = [], []
    for sublayer in _sublayers(model, first):
        if ".self_attn." in sublayer[0]:
            outputs += sublayer[:-1]
        else:
            inputs.append(sublayer[-1])
    if not outputs:
        raise BadInput(f"ia3 finds no attention in {type(model).__name__}", hint="set method: lora")
    return outputs, inputs


def _sublayers(model: PreTrainedModel, first: int) -> Iterator[list[str]]:
    """Names of the linear maps of each part of each layer, in the order of their definition."""
    import torch

    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    for layer in layers_of(model)[first:]:
        for part in layer.module.children():
            found = [names[module] for module in part.modules() if isinstance(module, torch.nn.Linear)]
            if found:
                yield found
