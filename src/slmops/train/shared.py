"""What all rows of a batch begin with: a system message, an instruction, a template's first words. It is read once.

Attention is causal, so the states of a common beginning are the same in every row; what rows learn through it adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from slmops.models.device import fastest_device
from slmops.train.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slmops.recipe.training import Optimisation

_LEAST_SAVED = 0.1
"""Share of a batch's tokens below which a second, short pass through all layers costs more than it saves."""

_WITH_KEYS = frozenset({"full_attention", "sliding_attention"})


def can_share(model: PreTrainedModel) -> bool:
    """Whether rows of `model` can go on from keys and values that they have in common.

    Not on a GPU, whose kernels are faster without the mask that this takes; nor where layers keep other things than
    keys and values, or where dropout draws for every row by itself.
    """
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    draws = any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules())
    attention = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    return fastest_device() == "cpu" and _WITH_KEYS.issuperset(kinds) and not draws and not attention


def shares(model: PreTrainedModel, settings: Optimisation, *, whole: bool, alone: bool) -> bool:
    """Whether batches read once what their rows begin with.

    Args:
        whole: all layers run in every pass; else what the still ones make of each row is kept, and begins the pass.
        alone: each row goes through by itself: something looks at what layers make of it, or the model is shared out
            over processes and gathered for one pass.
    """
    kept = bool(settings.freeze_layers) and not whole
    # What is computed again is computed without keys and values.
    return not (alone or kept or settings.checkpoint_activations) and can_share(model)


def shared_tokens(examples: Sequence[Example]) -> int:
    """Tokens that all prompts begin with and that nothing is said at; 0 where it is not worth a pass of its own."""
    count = min(example.predicts.start for example in examples)
    first, *others = (example.prompt for example in examples)
    for prompt in others:
        count = next((i for i in range(count) if prompt[i] != first[i]), count)
    longest = max(map(len, examples))
    return count if count * (len(examples) - 1) >= _LEAST_SAVED * longest * len(examples) else 0


class _Common(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one row, which every row of a batch goes on from.

    A layer repeats them when it asks for them. Repeated before, they and their gradients would stand in memory for all
    rows and layers at a time.
    """

    def __init__(self, kept: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(kept.keys, kept.keys)
        self.keys, self.values = kept.keys, kept.values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_more: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = len(key_states)
        keys, values = (kept.expand(rows, -1, -1, -1) for kept in (self.keys, self.values))
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def states_behind(model: Any, ids: torch.Tensor, shared: int) -> torch.Tensor:
    """Last hidden states of `ids`, int64 [rows, length], from position `shared` on: [rows, length - shared, width]."""
    # Of no configuration: layers that look back a short way would keep that way alone.
    kept = DynamicCache()
    model.base_model(input_ids=ids[:1, :shared], past_key_values=kept, use_cache=True)
    common = Cache(layers=[_Common(layer) for layer in kept.layers])
    states: torch.Tensor = model.base_model(
        input_ids=ids[:, shared:], past_key_values=common, use_cache=True
    ).last_hidden_state
    return states
