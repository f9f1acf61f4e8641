"""Prompts that are read once and gone on with token by token, on the keys and values that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class CachedBatch:
    """Prompts padded on the left, so that all answers begin in the same column of the cache.

    Attributes:
        logits: for the next token of each row, [rows, vocabulary], in the model's dtype; no gradient.
    """

    logits: torch.Tensor

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Read `prompts`, none of them empty, with a model in evaluation mode; it runs where it is."""
        import torch

        self._model = model
        length = max(map(len, prompts))
        ids = [[0] * (length - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self._mask = torch.tensor(mask, device=model.device)
        self._cache: Any = None
        self._run(torch.tensor(ids, device=model.device), (self._mask.cumsum(-1) - 1).clamp(min=0))

    def advance(self, ids: Sequence[int]) -> None:
        """Append one token to each row and run the model."""
        import torch

        self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        self._run(self._mask.new_tensor(ids)[:, None], self._mask.sum(-1, keepdim=True) - 1)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order; `logits` follow at the next `advance`."""
        chosen = self._mask.new_tensor(rows)
        self._mask = self._mask[chosen]
        self._cache.batch_select_indices(chosen)

    def _run(self, ids: torch.Tensor, positions: torch.Tensor) -> None:
        import torch

        with torch.inference_mode():
            output = self._model(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = output.past_key_values
        self.logits = output.logits[:, -1]
