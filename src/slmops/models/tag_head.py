"""A head that labels tokens in place of one that writes them, and how it is kept beside a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from slmops.models.tag_files import WEIGHTS, read_tags, write_tags

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GAIN = 8.0
"""What scores are multiplied by. A new head must move further than the body below it, at the body's learning rate."""


_OPTION_WEIGHT = 3.0
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
        """Log-probabilities [..., labels] of states [..., width], each alone; those of a group are a distribution."""
        return self._distributions(self._scores(hidden))

    def read(self, states: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Log-probabilities [tokens, labels] of what is to be labelled in several messages, one behind the other.

        A message's last tokens, one for each group but the first, speak for all of it: a label's score there is the
        logarithm of the sum of exponentials of its scores at the message's tokens and at that one. It is a smooth
        maximum, so one telling word is enough, and many weak ones are too.

        Args:
            states: [tokens, width].
            rows: how many of the tokens belong to each message.
        """
        ends, said = len(self.sizes) - 1, []
        for scores in torch.split(self._scores(states), list(rows)):
            message, last = torch.split(scores, [len(scores) - ends, ends])
            said += [message, torch.logaddexp(message.logsumexp(0), last)]
        return self._distributions(torch.cat(said))

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden, _GAIN * self.matrix, self.bias).float()

    def _distributions(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.cat([group.log_softmax(-1) for group in torch.split(scores, list(self.sizes), dim=-1)], dim=-1)

    def save(self, folder: Path) -> None:
        """Write `tags.json` and `tags.safetensors`, whose `matrix` has the gain in it."""
        write_tags(folder, {"sizes": self.sizes, "task": self.task})
        matrix = (_GAIN * self.matrix).detach().float().contiguous()
        save_file({"matrix": matrix, "bias": self.bias.detach().float().contiguous()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> TagHead:
        """The head that `save` wrote."""
        described, tensors = read_tags(folder), load_file(folder / WEIGHTS)
        head = cls(tensors["matrix"].shape[1], described["sizes"], described["task"])
        with torch.no_grad():
            head.matrix.copy_(tensors["matrix"] / _GAIN)
            head.bias.copy_(tensors["bias"])
        return head


def attach(model: PreTrainedModel, head: TagHead) -> None:
    """Put `head` in the place of the model's own."""
    head.replaced = (model.get_output_embeddings(),)
    model.set_output_embeddings(head.to(model.device, model.dtype))


def tag_head(model: PreTrainedModel) -> TagHead | None:
    """The model's head if it labels."""
    head = model.get_output_embeddings()
    return head if isinstance(head, TagHead) else None
