"""The layers that a decoder is made of, and what its configuration says of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Lists in a configuration with one entry for each layer: sliding or full attention, with rotary positions or not."""


@dataclass(frozen=True)
class Layer:
    """A decoder layer and its entries in the configuration's lists.

    Attributes:
        module: a torch module.
        entries: name of the list to this layer's entry, e.g. `{"layer_types": "sliding_attention"}`. The model looks
            them up by position to choose a mask, so they have to move with the layer.
    """

    module: Any
    entries: Mapping[str, Any]


def layers_of(model: PreTrainedModel) -> list[Layer]:
    """The layers of the decoder, from the lowest.

    Raises:
        BadInput: the model is none of text alone, or no plain stack of layers.
    """
    decoder = model.get_decoder()
    if decoder.config is not model.config or not hasattr(decoder, "layers"):
        raise BadInput(
            f"{type(model).__name__} cannot be cut or looked into: it is no plain stack of layers for text alone",
            hint="give the text model alone, such as Gemma3ForCausalLM",
        )
    lists = {name: found for name in PER_LAYER if (found := getattr(model.config, name, None))}
    return [
        Layer(module, {name: entries[i] for name, entries in lists.items()}) for i, module in enumerate(decoder.layers)
    ]


def set_layers(model: PreTrainedModel, layers: Sequence[Layer]) -> None:
    """Make the decoder of `layers` alone, in place; the configuration says so."""
    import torch

    model.get_decoder().layers = torch.nn.ModuleList([layer.module for layer in layers])
    model.config.num_hidden_layers = len(layers)
    for name in layers[0].entries:
        setattr(model.config, name, [layer.entries[name] for layer in layers])


@contextmanager
def only_layers(model: PreTrainedModel, span: slice) -> Iterator[None]:
    """The model made of some of its layers alone; fed with the states below them as `inputs_embeds`."""
    every = layers_of(model)
    set_layers(model, every[span])
    try:
        yield
    finally:
        set_layers(model, every)
