"""The reference engine: PyTorch through transformers, for models as they were trained."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.engines.base import EngineInfo, Logits, Prompts, Sampling, Token
from slmops.engines.decoding import check, decode, score
from slmops.errors import BadInput
from slmops.models.tokenizer import configured_end_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class TransformersEngine:
    """A Hugging Face causal language model on the CPU, in the precision it has on disk."""

    def __init__(self, model: PreTrainedModel, folder: Path, threads: int) -> None:
        self._model = model
        self._folder = folder
        self._threads = threads
        self._end_ids = configured_end_ids(folder)
        self._context: int = model.config.max_position_embeddings
        self._vocabulary: int = model.config.vocab_size

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> TransformersEngine:
        """See `Engine.load`. The number of threads is PyTorch's own and holds for the whole process."""
        try:
            import torch
            from safetensors import SafetensorError

            from slmops.models.source import load_model
        except ImportError as error:
            raise BadInput(f"the engine transformers needs {error.name}", hint=f"pip install {error.name}") from error
        if not (folder / "config.json").is_file():
            raise BadInput(f"{folder} holds no config.json", hint="give a Hugging Face model folder")
        threads = threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(threads)
        try:
            model = load_model(folder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadInput(f"the model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        return cls(model, folder, threads)

    def generate(self, prompts: Prompts, sampling: Sampling, *, top_logits: int = 0) -> Iterator[Token]:
        """See `Engine.generate`."""
        check(prompts, vocabulary=self._vocabulary, context=self._context)
        return decode(
            lambda group, _: _Batch(self._model, group),
            prompts,
            sampling,
            end_ids=self._end_ids,
            vocabulary=self._vocabulary,
            context=self._context,
            top_logits=top_logits,
        )

    def score(self, prompts: Prompts, continuations: Prompts) -> list[Logits]:
        """See `Engine.score`."""
        check(prompts, vocabulary=self._vocabulary, context=self._context, continuations=continuations)
        return score(self._forward, prompts, continuations, vocabulary=self._vocabulary)

    def _forward(self, sequences: Prompts) -> Logits:
        import torch

        length = max(map(len, sequences))
        ids = torch.tensor([list(sequence) + [0] * (length - len(sequence)) for sequence in sequences])
        with torch.inference_mode():
            # No mask: attention is causal, and what stands on the right is not read.
            logits: Logits = self._model(input_ids=ids).logits.float().numpy()
        return logits

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        from slmops.models.source import count_parameters, weights_bytes

        return EngineInfo(
            engine="transformers",
            version=version("transformers"),
            precision=str(self._model.dtype).removeprefix("torch."),
            weights_bytes=weights_bytes(self._folder),
            parameters=count_parameters(self._model),
            context_tokens=self._context,
            threads=self._threads,
        )


class _Batch:
    """Prompts padded on the left, so that all answers begin in the same column of the cache."""

    def __init__(self, model: PreTrainedModel, prompts: Prompts) -> None:
        import torch

        self._model = model
        length = max(map(len, prompts))
        ids = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
        self._mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self._cache: Any = None
        self._run(ids, (self._mask.cumsum(-1) - 1).clamp(min=0))

    def logits(self) -> Logits:
        return self._logits

    def advance(self, ids: Sequence[int]) -> None:
        import torch

        self._mask = torch.cat([self._mask, torch.ones(len(ids), 1, dtype=torch.long)], dim=1)
        self._run(torch.tensor(ids)[:, None], self._mask.sum(-1, keepdim=True) - 1)

    def keep(self, rows: Sequence[int]) -> bool:
        import torch

        chosen = torch.tensor(rows)
        self._mask = self._mask[chosen]
        self._cache.batch_select_indices(chosen)
        return True

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
        self._logits: Logits = output.logits[:, -1].float().numpy()
