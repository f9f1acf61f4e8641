"""Which tokens, layers, heads and channels of a teacher the student keeps, judged on the task's own rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from slmops.models.carve import evenly_spaced, important_layers
from slmops.models.device import fastest_device
from slmops.models.tokenizer import Tokenizer
from slmops.models.vocabulary import trimmed
from slmops.progress import Progress
from slmops.recipe.student import Carve
from slmops.tasks.base import Task
from slmops.teach.used_tokens import used_tokens
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.importance import measure_importance, most_important
from slmops.train.objectives.observe import answer_logits
from slmops.train.objectives.text import cross_entropy
from slmops.train.precision import resolve_precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHED_ROWS = 6
"""About 130 answer tokens. Twice as many take twice as long; for the demo they left out layers 5 and 25, these leave
out 5 and 12. Which student is better was not measured."""

MEASURED_ROWS = 32
"""Heads and channels are measured in one forward pass over these."""


def choose_tokens(
    tokenizer: Tokenizer, task: Task, data: Path, answers: Iterable[Sequence[int]], settings: Carve
) -> tuple[Tokenizer, list[int] | None]:
    """The student's tokenizer and the old ids of its tokens; None when all are kept.

    Trimming keeps the `used_tokens` of the rows and those of the teacher's answers.

    Args:
        answers: the teacher's, in the tokens of `tokenizer`.
    """
    if settings.vocabulary == "keep":
        return tokenizer, None
    used = set[int]()
    if settings.vocabulary == "trim":
        used = used_tokens(tokenizer, task, data).union(*answers)
    return trimmed(tokenizer, used, extra=settings.extra_tokens)


def choose_layers(
    model: PreTrainedModel, examples: Sequence[Example], settings: Carve, *, progress: Progress
) -> list[int]:
    """The layers to keep.

    Importance is weighed by the loss on `examples`, the first of the teacher's answers to the pool. On the rows it was
    fitted to it may know the values by heart, and the layers that copy them would look idle.
    """
    count = model.config.num_hidden_layers
    keep = min(settings.layers or count, count)
    if settings.choose == "first" or keep == count:
        return list(range(keep))
    if settings.choose == "even":
        return evenly_spaced(count, keep)
    device = fastest_device()
    batch = {name: tensor.to(device) for name, tensor in collate(examples[:WEIGHED_ROWS], pad=0).items()}
    # The order of the losses survives bfloat16; the student's own weights stay as they are.
    weighed = copy.deepcopy(model).to(device, resolve_precision("auto", model.config).dtype)

    def loss() -> float:
        with torch.inference_mode():
            return float(cross_entropy(answer_logits(weighed, batch), batch["target"]))

    return important_layers(weighed, keep, loss, progress)


def choose_width(
    model: PreTrainedModel, examples: Sequence[Example], settings: Carve, *, progress: Progress
) -> tuple[list[list[int]] | None, list[list[int]] | None]:
    """The key-value heads and the channels to keep of each layer of `model`, each None when all are kept.

    Measured on the teacher's answers to the pool, as layers are.
    """
    if settings.heads is None and settings.channels is None:
        return None, None
    layers = measure_importance(model, examples[:MEASURED_ROWS], progress)
    heads, channels = settings.heads, settings.channels
    return (
        None if heads is None else [most_important(layer.groups, heads) for layer in layers],
        None if channels is None else [most_important(layer.channels, channels) for layer in layers],
    )
