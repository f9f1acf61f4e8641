"""The reference engine: PyTorch through transformers, for models as they were trained."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slmops.engines.base import EngineInfo, Logits, Prompts, Sampling, Token, Top
from slmops.engines.choices import Node, check_choices, common_prefix, one_by_one, tree
from slmops.engines.decoding import MAX_LOGITS, MAX_REQUESTS, check, decode, score, score_top
from slmops.errors import BadInput
from slmops.models.cached import CachedBatch
from slmops.models.tokenizer import configured_end_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


_MAX_CACHED = 4096
"""Tokens in the caches of rows that are scored together; attention gains nothing from more."""


class TransformersEngine:
    """A Hugging Face causal language model in the precision it has on disk."""

    def __init__(self, model: PreTrainedModel, folder: Path, threads: int) -> None:
        from slmops.models.adapters.soft_prompt import prompt_tokens

        self._model = model
        self._folder = folder
        self._threads = threads
        self._end_ids = configured_end_ids(folder)
        self._context: int = model.config.max_position_embeddings - prompt_tokens(model)
        self._vocabulary: int = model.config.vocab_size

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0, device: str = "cpu") -> TransformersEngine:
        """See `load_engine`. The number of threads is PyTorch's own and holds for the whole process."""
        return cls(*load(folder, threads, device))

    def adapted(self, path: Path) -> TransformersEngine:
        """See `Adaptable.adapted`. It has a copy of the weights, with the adapter merged."""
        return TransformersEngine(merged(self._model, path), self._folder, self._threads)

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

    def score_top(self, prompts: Prompts, continuations: Prompts, *, top_logits: int) -> list[Top]:
        """See `Engine.score_top`."""
        check(prompts, vocabulary=self._vocabulary, context=self._context, continuations=continuations)
        return score_top(self._forward, prompts, continuations, vocabulary=self._vocabulary, top_logits=top_logits)

    def score_choices(self, prompts: Prompts, choices: Prompts) -> Logits:
        """See `Engine.score_choices`. One pass per prompt over its own end and the tree of choices."""
        nodes = tree(choices)
        check_choices(prompts, choices, vocabulary=self._vocabulary, context=self._context)
        if not _attends_to_all(self._model):
            return one_by_one(self._forward, prompts, choices)
        scores = np.empty((len(prompts), len(choices)), dtype=np.float32)
        shared = common_prefix(prompts) if prompts else 0
        beginning = _run_shared(self._model, prompts[0][:shared]) if shared else None
        for rows in _alike(prompts, len(nodes), self._vocabulary):
            rests = [prompts[row][shared:] for row in rows]
            scores[rows] = _score_tree(self._model, beginning, shared, rests, nodes, len(choices))
        return scores

    def _forward(self, sequences: Prompts) -> Logits:
        import torch

        with torch.inference_mode():
            return as_array(self._model(input_ids=_padded(self._model, sequences)).logits)

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return _info(self._model, self._folder, self._threads)


class TransformersBody:
    """The layers of a model that labels; see `slmops.engines.tagging.Body`."""

    def __init__(self, model: PreTrainedModel, folder: Path, threads: int) -> None:
        self._model, self._folder, self._threads = model, folder, threads
        self.vocabulary: int = model.config.vocab_size

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0, device: str = "cpu") -> TransformersBody:
        """See `load_engine`."""
        return cls(*load(folder, threads, device))

    def states(self, sequences: Prompts) -> Logits:
        """See `Body.states`."""
        import torch

        with torch.inference_mode():
            output = self._model.base_model(input_ids=_padded(self._model, sequences), use_cache=False)
            return as_array(output.last_hidden_state)

    def info(self) -> EngineInfo:
        """See `Body.info`. The head is in the model, so its weights are left out here."""
        from slmops.models.tag_files import WEIGHTS

        whole = _info(self._model, self._folder, self._threads)
        head = sum(weight.numel() for weight in self._model.get_output_embeddings().parameters())
        return replace(
            whole,
            parameters=whole.parameters - head,
            weights_bytes=whole.weights_bytes - (self._folder / WEIGHTS).stat().st_size,
        )


def load(folder: Path, threads: int, device: str) -> tuple[PreTrainedModel, Path, int]:
    """The model in `folder`, the folder, and how many threads PyTorch now takes."""
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
        model = load_model(folder, device=device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"the model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model, folder, threads


def merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """A copy of `model` with the adapter in a folder of PEFT merged.

    Raises:
        BadInput: see `merge_from`.
    """
    from slmops.models.adapters.attach import merge_from

    own = copy.deepcopy(model)
    merge_from(own, adapter)
    return own.requires_grad_(False).eval()


def _info(model: PreTrainedModel, folder: Path, threads: int) -> EngineInfo:
    from slmops.models.source import count_parameters
    from slmops.models.weight_files import weights_bytes

    return EngineInfo(
        engine="transformers",
        version=version("transformers"),
        precision=str(model.dtype).removeprefix("torch."),
        weights_bytes=weights_bytes(folder),
        parameters=count_parameters(model),
        context_tokens=model.config.max_position_embeddings,
        threads=threads,
        device=model.device.type,
    )


class _Batch:
    """A batch in flight, as the decoding loop wants it."""

    def __init__(self, model: PreTrainedModel, prompts: Prompts) -> None:
        self._rows = CachedBatch(model, prompts)

    def logits(self) -> Logits:
        return as_array(self._rows.logits)

    def advance(self, ids: Sequence[int]) -> None:
        self._rows.advance(ids)

    def keep(self, rows: Sequence[int]) -> bool:
        self._rows.keep(rows)
        return True


def _padded(model: PreTrainedModel, sequences: Prompts) -> torch.Tensor:
    """Ids [sequences, longest] for a pass without a mask: attention is causal, so no token reads what is behind it."""
    import torch

    length = max(map(len, sequences))
    rows = [list(sequence) + [0] * (length - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, device=model.device)


def as_array(tensor: torch.Tensor) -> Logits:
    """Of any type and device."""
    array: Logits = tensor.float().cpu().numpy()
    return array


def _attends_to_all(model: PreTrainedModel) -> bool:
    """Whether every layer sees all tokens before: only then may a mask of ours stand for the model's own."""
    from slmops.models.adapters.soft_prompt import prompt_tokens

    if prompt_tokens(model):
        return False
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and not getattr(config, "sliding_window", None)


def _run_shared(model: PreTrainedModel, ids: Sequence[int]) -> Any:
    """The cache after the tokens that all prompts begin with."""
    import torch

    with torch.inference_mode():
        return model(input_ids=_padded(model, [ids]), use_cache=True, logits_to_keep=1).past_key_values


def _alike(prompts: Prompts, nodes: int, vocabulary: int) -> Iterator[list[int]]:
    """Rows of like length together, as many as logits and caches have room for."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    while order:
        longest = len(prompts[order[min(len(order), MAX_REQUESTS) - 1]])
        fit = min(MAX_REQUESTS, MAX_LOGITS // (nodes * vocabulary), _MAX_CACHED // (longest + nodes))
        yield order[: max(1, fit)]
        order = order[max(1, fit) :]


def _score_tree(
    model: PreTrainedModel, beginning: Any, shared: int, rests: Prompts, nodes: Sequence[Node], choices: int
) -> Logits:
    """Log-likelihoods [rows, choices] in one pass over the rows' own tokens, padded on the left, and the tree.

    A node sees its prompt and the nodes it goes on from, and stands where it would stand alone (tree attention:
    Miao et al. 2024, "SpecInfer", section 4).
    """
    import torch

    length, device = max(map(len, rests)), model.device
    pads = torch.tensor([length - len(rest) for rest in rests])
    tail = [node.path[-1] for node in nodes[1:]]
    ids = torch.tensor([[0] * (length - len(rest)) + [*rest, *tail] for rest in rests])
    depth = torch.tensor([*range(length), *(length - 1 + len(node.path) for node in nodes[1:])])
    positions = (shared + depth - pads[:, None]).clamp(min=0)
    mask = _tree_mask(shared, length, pads, nodes)
    cache = copy.deepcopy(beginning)
    if cache is not None:
        cache.batch_repeat_interleave(len(rests))
    with torch.inference_mode():
        logits = (
            model(
                input_ids=ids.to(device),
                attention_mask=torch.where(mask, 0.0, torch.finfo(model.dtype).min).to(device, model.dtype),
                position_ids=positions.to(device),
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=len(nodes),
            )
            .logits.float()
            .cpu()
        )
    total = np.zeros((len(rests), choices), dtype=np.float32)
    for row, of_nodes in zip(total, as_array(logits), strict=True):
        for node, behind in zip(nodes, of_nodes, strict=True):
            through, shares = node.shares(behind)
            row[through] += shares
    return total


def _tree_mask(shared: int, length: int, pads: torch.Tensor, nodes: Sequence[Node]) -> torch.Tensor:
    """Who sees whom, bool [rows, 1, length + nodes - 1, shared + length + nodes - 1]."""
    import torch

    size = length + len(nodes) - 1
    sees = torch.zeros(size, size, dtype=torch.bool)
    sees[:length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
    sees[length:, :length] = True
    for parent, node in enumerate(nodes):
        for child in node.children:
            # The root is the prompt's last token; nodes after it are columns of their own.
            if parent:
                sees[length - 1 + child, length:] = sees[length - 1 + parent, length:]
            sees[length - 1 + child, length - 1 + child] = True
    mask = sees.repeat(len(pads), 1, 1)
    columns = torch.arange(size)
    mask &= columns >= pads[:, None, None]
    # Padding sees itself, for a row that sees nothing has no softmax; nobody reads it.
    mask |= torch.eye(size, dtype=torch.bool) & (columns < pads[:, None, None])
    return torch.cat([torch.ones(len(pads), size, shared, dtype=torch.bool), mask], dim=2)[:, None]
