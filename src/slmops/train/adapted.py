"""A training that leaves the weights of its model still and moves an adapter beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from slmops.errors import BadInput
from slmops.models.adapters.attach import adapter_weights, attach, merge
from slmops.models.adapters.files import AdapterWeights
from slmops.models.adapters.four_bit import load_in_four_bits, through_four_bits
from slmops.models.source import load_model
from slmops.recipe.training import Optimisation
from slmops.recipe.tuning import Adapter
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.objectives.observe import answer_logits
from slmops.train.trunk import batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST_LOGITS = 1 << 25
"""Of the held-out answers that the merged model is compared on: 128 MiB."""


@dataclass(frozen=True)
class Merged:
    """How far what comes out says what was trained, on held-out answers.

    Attributes:
        kl: mean over their tokens of KL(as trained ‖ merged), in nats.
        agreement: share of their tokens at which both find the same token most likely.
        tokens: how many that were.
    """

    kl: float
    agreement: float
    tokens: int

    def figures(self) -> dict[str, float | str]:
        return {"merge_kl": self.kl, "merge_agreement": self.agreement, "merge_tokens": self.tokens}


def load_base(folder: Path, adapter: Adapter | None, *, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """The model in `folder` as a training wants it, before anything is put into it."""
    if adapter and adapter.method == "qlora":
        return load_in_four_bits(folder, dtype=dtype, device=device)
    return load_model(folder, dtype=dtype, device=device)


def check_adapter(
    adapter: Adapter, examples: Sequence[Example], context: int, *, replaces_weights: Sequence[tuple[str, bool]]
) -> None:
    """Refuse what an adapter does not go with.

    Args:
        context: tokens that the model may read.
        replaces_weights: what moves or replaces weights themselves, and whether it is asked for.

    Raises:
        BadInput: says what, or that a prompt leaves no room for an example.
    """
    if asked := [name for name, wanted in replaces_weights if wanted]:
        raise BadInput(
            f"{asked[0]} does not go with method: {adapter.method}, which leaves the weights still",
            hint="set method: full",
        )
    longest = max(map(len, examples))
    if longest + adapter.tokens > context:
        raise BadInput(
            f"the longest row has {longest} tokens, and behind a prompt of {adapter.tokens} the model's context has "
            f"room for {context - adapter.tokens}",
            hint="lower adapter.tokens, or shorten the rows",
        )


def taken_out(
    model: PreTrainedModel, weights: Sequence[torch.Tensor], folder: Path, settings: Optimisation, adapter: Adapter
) -> tuple[PreTrainedModel, AdapterWeights]:
    """The base in `folder` in float32 on the processor with the trained adapter on, and the adapter.

    Args:
        model: as it was trained.
        weights: of the adapter, float32, in the order of the model's moving weights.
    """
    made = load_model(folder, dtype=torch.float32)
    if adapter.method == "qlora":
        through_four_bits(made, model.dtype)
    attach(made, adapter, first=settings.freeze_layers)
    put_in(made, weights)
    return made, adapter_weights(made, adapter)


def put_in(model: PreTrainedModel, weights: Sequence[torch.Tensor]) -> None:
    """Give the moving weights of `model` these values."""
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight, value in zip(moving, weights, strict=True):
            weight.copy_(value)


def merged(made: PreTrainedModel, trained: PreTrainedModel, held_out: Sequence[Example]) -> Merged | None:
    """Merge the adapter of `made` into its weights, and compare it with the model `trained` as it is.

    None where there are no held-out examples.
    """
    merge(made)
    made.eval(), trained.eval()
    kl, same, tokens = 0.0, 0, 0
    for batch in _some(held_out, trained):
        before, after = (_log_probs(model, batch) for model in (trained, made))
        kl += float((before.exp() * (before - after)).sum())
        same += int((before.argmax(-1) == after.argmax(-1)).sum())
        tokens += len(before)
    return Merged(max(0.0, kl / tokens), same / tokens, tokens) if tokens else None


def _some(held_out: Sequence[Example], model: PreTrainedModel) -> Iterator[list[Example]]:
    """Batches of as many examples as `_MOST_LOGITS` has room for, the first ones."""
    chosen, room = list[Example](), _MOST_LOGITS // model.config.get_text_config().vocab_size
    for example in held_out:
        room -= len(example.answer)
        if room < 0 and chosen:
            break
        chosen.append(example)
    return ([chosen[i] for i in batch] for batch in batches(chosen, model.device.type))


@torch.no_grad()
def _log_probs(model: PreTrainedModel, examples: Sequence[Example]) -> torch.Tensor:
    """Log-probabilities at the answers' tokens, float32 [answer tokens, vocabulary], on the processor."""
    inputs = {name: tensor.to(model.device) for name, tensor in collate(examples, pad=0).items()}
    return answer_logits(model, inputs).log_softmax(-1).cpu()
