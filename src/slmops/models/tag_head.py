"""A head that labels tokens in place of one that writes them, and how it is kept beside a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from slmops.models.tag_files import TAGS, WEIGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GAIN = 8.0
"""What scores are multiplied by. A new head must move further than the body below it, at the body's learning rate."""


_OPTION_WEIGHT = 10.0
"""What the label of a whole message counts beside that of a token, of which a message has some thirty."""


class TagHead(torch.nn.Module):
    """A linear map from hidden states to labels in groups, each group a distribution of its own.

    Attributes:
        sizes: labels of each group.
        weights: float32 [labels], what each counts in training.
        task: what the labels mean; carried along as it is.
        replaced: the head that this one stands in for, once it is attached. In a tuple it is no submodule: its weights
            are neither trained nor counted.
    """

    replaced: tuple[torch.nn.Module, ...] = ()
    weights: torch.Tensor

    def __init__(self, width: int, sizes: Sequence[int], task: Mapping[str, Any]) -> None:
        super().__init__()
        self.sizes, self.task = tuple(sizes), dict(task)
        self.matrix = torch.nn.Parameter(torch.zeros(sum(sizes), width))
        self.bias = torch.nn.Parameter(torch.zeros(sum(sizes)))
        counts = [1.0, *[_OPTION_WEIGHT] * (len(sizes) - 1)]
        self.register_buffer("weights", torch.tensor(counts).repeat_interleave(torch.tensor(sizes)), persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [..., labels] of states [..., width]; those of each group are a distribution."""
        scores = torch.nn.functional.linear(hidden, _GAIN * self.matrix, self.bias).float()
        return torch.cat([group.log_softmax(-1) for group in torch.split(scores, list(self.sizes), dim=-1)], dim=-1)

    def save(self, folder: Path) -> None:
        """Write `tags.json` and `tags.safetensors`, whose `matrix` has the gain in it."""
        (folder / TAGS).write_text(json.dumps({"sizes": self.sizes, "task": self.task}) + "\n", encoding="utf-8")
        matrix = (_GAIN * self.matrix).detach().float().contiguous()
        save_file({"matrix": matrix, "bias": self.bias.detach().float().contiguous()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> TagHead:
        """The head that `save` wrote."""
        described, tensors = json.loads((folder / TAGS).read_text(encoding="utf-8")), load_file(folder / WEIGHTS)
        head = cls(tensors["matrix"].shape[1], described["sizes"], described["task"])
        with torch.no_grad():
            head.matrix.copy_(tensors["matrix"] / _GAIN)
            head.bias.copy_(tensors["bias"])
        return head


def attach(model: PreTrainedModel, head: TagHead) -> None:
    """Put `head` in the place of the model's own."""
    head.replaced = (model.get_output_embeddings(),)
    model.set_output_embeddings(head.to(model.dtype))


def tag_head(model: PreTrainedModel) -> TagHead | None:
    """The model's head if it labels."""
    head = model.get_output_embeddings()
    return head if isinstance(head, TagHead) else None


def label_weights(model: PreTrainedModel) -> torch.Tensor | None:
    """What each label counts in training, float32 [labels]; None where the model writes."""
    head = tag_head(model)
    return None if head is None else head.weights
