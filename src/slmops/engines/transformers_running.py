"""A running batch on PyTorch, for models as they were trained: on a processor to compare with, on a GPU to serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.engines.base import Logits
from slmops.engines.running import NO_GUESSES, Steps, beginning
from slmops.engines.transformers import as_array, load, merged

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Held = list[tuple["torch.Tensor", "torch.Tensor"]]
"""Keys and values of each layer, [heads, tokens, size]; never written to, so sequences may share them."""


class TransformersRunning:
    """A Hugging Face folder; see `slmops.engines.running.Running`.

    Sequences that run together are laid side by side for each pass, which copies what they hold.
    """

    guessing, guess_tokens = 1, 6

    def __init__(self, model: PreTrainedModel, slots: int) -> None:
        self._model, self.slots = model, slots
        self.room: int = model.config.max_position_embeddings
        self.vocabulary: int = model.config.vocab_size
        self._ids: list[list[int]] = [[] for _ in range(slots)]
        self._held: list[Held] = [[] for _ in range(slots)]
        self._models: list[PreTrainedModel] = [model] * slots

    @classmethod
    def load(cls, folder: Path, *, slots: int, threads: int = 0, device: str = "cpu") -> TransformersRunning:
        """See `load_running`. The number of threads is PyTorch's own and holds for the whole process."""
        model, _, _ = load(folder, threads, device)
        return cls(model, slots)

    adapts = True

    def load_adapter(self, path: Path) -> PreTrainedModel:
        """See `slmops.engines.running.Adapting`. It is a copy of the model, with the adapter merged."""
        return merged(self._model, path)

    def begin(self, slot: int, prompt: Sequence[int], adapter: PreTrainedModel | None = None) -> int:
        """See `Running.begin`."""
        model = adapter or self._model
        alike = [ids if other is model else [] for ids, other in zip(self._ids, self._models, strict=True)]
        source, known = beginning(alike, slot, prompt)
        self._models[slot] = model
        self._held[slot] = _first(self._held[source], known)
        self._ids[slot] = list(prompt[:known])
        return known

    def rewind(self, slot: int, length: int) -> None:
        """See `Running.rewind`."""
        self._held[slot] = _first(self._held[slot], length)
        del self._ids[slot][length:]

    def run(self, steps: Steps, guesses: Mapping[int, int] = NO_GUESSES) -> dict[int, Logits]:
        """See `Running.run`. Sequences that get one token run together, each other one by itself."""
        single = {slot: ids for slot, ids in steps.items() if len(ids) == 1 and self._ids[slot]}
        groups = [
            {slot: ids for slot, ids in single.items() if self._models[slot] is model} for model in self._worn(single)
        ]
        groups += [{slot: ids} for slot, ids in steps.items() if slot not in single]
        found = {slot: logits for group in groups for slot, logits in self._together(group, guesses).items()}
        for slot, ids in steps.items():
            self._ids[slot] += ids
        return found

    def _worn(self, slots: Iterable[int]) -> list[PreTrainedModel]:
        """The models of some sequences, each once."""
        return list({id(self._models[slot]): self._models[slot] for slot in slots}.values())

    def _together(self, steps: Steps, guesses: Mapping[int, int]) -> dict[int, Logits]:
        """Run sequences of one model that get equally many tokens, padded on the left with what is masked."""
        import torch

        model = self._models[next(iter(steps))]
        device = model.device
        past = [len(self._ids[slot]) for slot in steps]
        width = max(past)
        begins = torch.tensor([width - length for length in past], device=device)[:, None]
        ids = torch.tensor([list(new) for new in steps.values()], device=device)
        at = torch.arange(width + ids.shape[1], device=device)
        with torch.inference_mode():
            output = model(
                input_ids=ids,
                attention_mask=(at >= begins).long(),
                position_ids=at[width:] - begins,
                past_key_values=_side_by_side([self._held[slot] for slot in steps], width),
                use_cache=True,
                logits_to_keep=1 + max(guesses.get(slot, 0) for slot in steps),
            )
        for row, (slot, length) in enumerate(zip(steps, past, strict=True)):
            own = slice(width - length, None)
            self._held[slot] = [
                (layer.keys[row, :, own].clone(), layer.values[row, :, own].clone())
                for layer in output.past_key_values.layers
            ]
        return dict(zip(steps, as_array(output.logits), strict=True))


def _first(held: Held, tokens: int) -> Held:
    return [(keys[:, :tokens], values[:, :tokens]) for keys, values in held] if tokens else []


def _side_by_side(rows: Sequence[Held], width: int) -> Any:
    """What sequences hold, in one cache that has [sequences, heads, width, size] of each layer."""
    import torch
    from torch.nn.functional import pad
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, parts in enumerate(zip(*rows, strict=True)):
        keys, values = (
            torch.stack([pad(part, (0, 0, width - part.shape[1], 0)) for part in side])
            for side in zip(*parts, strict=True)
        )
        cache.update(keys, values, layer)
    return cache
