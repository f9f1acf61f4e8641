"""Running student and teacher over a batch, and keeping what terms ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slmops.errors import BadInput
from slmops.models.device import fastest_device
from slmops.models.fused_norms import fuse_norms, fuses
from slmops.models.layers import layers_of
from slmops.models.source import load_model
from slmops.models.tag_head import tag_head
from slmops.progress import Progress
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.objectives.base import Shape, Spans, Vectors
from slmops.train.objectives.recall import Recall
from slmops.train.objectives.spans import span_log_probs
from slmops.train.shared import states_behind
from slmops.train.trunk import MAX_STATES_BYTES, batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = Mapping[str, torch.Tensor]
"""A collated batch; see `collate`."""


def answer_logits(model: Any, inputs: Inputs) -> torch.Tensor:
    """The model's logits, float32 [answer tokens, vocabulary]: the head is computed at answer positions only.

    Where `inputs` hold `states`, what the still layers below put out, the model is run from there; where they hold
    `shared`, so many tokens that all rows begin with are run once. A model that is shared out over processes has a
    method for it, which gathers its weights first (see `sharding.shard`).
    """
    own = getattr(model, "answer_logits", None)
    return run_to_answers(model, inputs) if own is None else own(inputs)


def run_to_answers(model: Any, inputs: Inputs) -> torch.Tensor:
    """As `answer_logits`, with weights that are there."""
    return head_logits(model, answer_states(model, inputs), inputs)


def answer_states(model: Any, inputs: Inputs) -> torch.Tensor:
    """What goes into the head at answer positions, [answer tokens, width]."""
    if "shared" in inputs:
        shared = int(inputs["shared"])
        behind: torch.Tensor = states_behind(model, inputs["input_ids"], shared)
        return behind[inputs["predicts"][:, shared:]]
    below = {"inputs_embeds": inputs["states"]} if "states" in inputs else {"input_ids": inputs["input_ids"]}
    # No mask: attention is causal, so no token reads the padding behind it, and kernels without one are faster.
    hidden: torch.Tensor = model.base_model(**below, use_cache=False).last_hidden_state
    return hidden[inputs["predicts"]]


def row_states(model: Any, states: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """One state for each row, float32 [rows, width], of those at its answer; see `View.states`."""
    rows = torch.split(states.float(), inputs["predicts"].sum(1).tolist())
    if tag_head(model) is None:
        return torch.stack([row[0] for row in rows])
    return torch.stack([row.mean(0) for row in rows])


def row_vectors(model: Any, inputs: Inputs) -> Vectors:
    """The texts of a batch as vectors: the layers are run over them alone, without a template, as they are served."""
    asked, answers = (text_vectors(model, inputs[f"{side}_ids"], inputs[f"{side}_mask"]) for side in ("asked", "told"))
    return Vectors(asked, answers, inputs["told_of"])


def text_vectors(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of the last hidden states over each text's tokens, of length one, float32 [texts, width].

    Args:
        ids, mask: int64 [texts, longest], padded on the right.
    """
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.float()
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(mean, dim=-1, eps=1e-12)


def head_logits(model: Any, states: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """What the head makes of the states at answer positions, [answer tokens, width]: as `answer_logits`."""
    labels = tag_head(model)
    if labels is not None:
        return labels.read(states, inputs["predicts"].sum(1).tolist())
    logits: torch.Tensor = model.get_output_embeddings()(states)
    return logits.float()


def label_weights(model: Any, inputs: Inputs) -> torch.Tensor | None:
    """How much each label to be said counts, float32 [answer tokens]; None where the model writes."""
    head = tag_head(model)
    return None if head is None else head.weights[inputs["target"]] * inputs["certainty"]


def labels_asked(model: Any, inputs: Inputs) -> torch.Tensor | None:
    """The labels that one is chosen from, bool [answer tokens, labels]; None where the model writes."""
    head = tag_head(model)
    if head is None:
        return None
    sizes = torch.tensor(head.sizes, device=inputs["target"].device)
    group = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    return group == group[inputs["target"]][:, None]


_BY_POSITION = ("target", "certainty", "counts", "soft_ids", "soft_log_probs")


def every_nth(inputs: Inputs, n: int) -> Inputs:
    """The batch with every n-th of its predicted positions alone; which of them, follows from its tokens."""
    if n == 1:
        return inputs
    count = len(inputs["target"])
    first = int(inputs["input_ids"].sum()) % min(n, count)
    chosen = torch.arange(count, device=inputs["target"].device)[first::n]
    rows, places = inputs["predicts"].nonzero(as_tuple=True)
    predicts = torch.zeros_like(inputs["predicts"])
    predicts[rows[chosen], places[chosen]] = True
    by_position = {name: inputs[name][chosen] for name in _BY_POSITION if name in inputs}
    return {**inputs, "predicts": predicts, **by_position}


def shape_of(model: PreTrainedModel) -> Shape:
    config = model.config.get_text_config()
    return Shape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)


class Taps:
    """Forward hooks on chosen layers. Modules are remembered, so a model run from the middle keeps its numbers."""

    def __init__(self, model: PreTrainedModel, *, hidden: Iterable[int], attention: Iterable[int]) -> None:
        layers = [layer.module for layer in layers_of(model)]
        self._hidden: dict[int, torch.Tensor] = {}
        self._attention: dict[int, torch.Tensor] = {}
        self._handles = [_hook(layers[i], partial(self._keep_hidden, i)) for i in hidden]
        self._handles += [_hook(_attention_of(layers[i]), partial(self._keep_attention, i)) for i in attention]

    def take(self, at: torch.Tensor) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """What the last forward pass left at the positions `at`, bool [rows, length]; nothing is left behind.

        Returns:
            Hidden states, float32 [n, width], and attention maps, float32 [n, heads, length], by layer.
        """
        hidden = {i: states[at].float() for i, states in self._hidden.items()}
        maps = {i: maps.transpose(1, 2)[at].float() for i, maps in self._attention.items()}
        self._hidden, self._attention = {}, {}
        return hidden, maps

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep_hidden(self, layer: int, output: Any) -> None:
        self._hidden[layer] = output[0] if isinstance(output, tuple) else output

    def _keep_attention(self, layer: int, output: Any) -> None:
        if not isinstance(output, tuple) or output[1] is None:
            raise BadInput("train.objective: attention: this model does not give its attention maps", hint=_KINDS)
        self._attention[layer] = output[1]


_KINDS = "use the kind hidden, or one of the divergences"


def _hook(module: Any, keep: Callable[[Any], None]) -> Any:
    def hook(_module: Any, _arguments: Any, output: Any) -> None:
        keep(output)

    return module.register_forward_hook(hook)


def _attention_of(layer: Any) -> Any:
    if not hasattr(layer, "self_attn"):
        raise BadInput(f"train.objective: attention: {type(layer).__name__} of this model has none", hint=_KINDS)
    return layer.self_attn


@dataclass(frozen=True)
class TeacherModel:
    """The teacher that runs beside a student.

    Attributes:
        folder: a model folder.
        kept_tokens: the teacher's id of each of the student's tokens; None when their vocabularies are the same.
        cut_from: the teacher's layer that each of the student's was cut from; None when it is no cut.
    """

    folder: Path
    kept_tokens: Sequence[int] | None = None
    cut_from: Sequence[int] | None = None


class Teacher:
    """A teacher in the loop: it reads what the student reads, in its own tokens, and does not move."""

    def __init__(self, teacher: TeacherModel, *, dtype: torch.dtype, logits: bool) -> None:
        self.model = load_model(teacher.folder, dtype=dtype).requires_grad_(False)
        if fuses(self.model):
            fuse_norms(self.model)
        self.kept = None if teacher.kept_tokens is None else torch.tensor(list(teacher.kept_tokens))
        self.cut_from, self.logits = teacher.cut_from, logits
        self.taps: Taps | None = None
        self.recall, self.layers, self.maps = Recall(), 0, False

    def tap(self, *, hidden: Sequence[int], attention: Sequence[int]) -> None:
        self.layers, self.maps = len(hidden), bool(attention)
        if attention:
            self.model.set_attn_implementation("eager")
        self.taps = Taps(self.model, hidden=hidden, attention=attention)

    @torch.no_grad()
    def run(self, inputs: Inputs) -> tuple[torch.Tensor | None, dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """Logits at answer positions, float32 [n, its vocabulary], if wanted; hidden states and attention maps.

        The layers are run where the states of an example are not known yet.
        """
        maps: dict[int, torch.Tensor] = {}
        if known := self.recall.find(inputs):
            final, hidden = known
            self._go_to(final.device)
        else:
            final, hidden, maps = self._states(inputs)
        logits = head_logits(self.model, final, inputs) if self.logits else None
        return logits, hidden, maps

    @torch.no_grad()
    def read(self, examples: Sequence[Example], progress: Progress) -> None:
        """Run the layers over the examples once and keep what comes out, so that no pass has to.

        Nothing is kept where that would need more than `MAX_STATES_BYTES`, or where attention maps are wanted. The
        batches depend on the examples alone, so a resumed training computes the same bits.
        """
        answers = sum(len(example.answer) for example in examples)
        width, dtype, device = self.model.config.hidden_size, self.model.dtype, fastest_device()
        if self.maps or answers * (1 + self.layers) * width * dtype.itemsize > MAX_STATES_BYTES:
            return
        with progress.task("run the uncut model", sum(map(len, examples)), "tokens") as task:
            for batch in batches(examples, device):
                taken = [examples[i] for i in batch]
                inputs = {name: tensor.to(device) for name, tensor in collate(taken, pad=0).items()}
                final, hidden, _ = self._states(inputs)
                sizes = [len(example.answer) for example in taken]
                parts = {layer: torch.split(states.to(dtype), sizes) for layer, states in hidden.items()}
                for row, (example, own) in enumerate(zip(taken, torch.split(final, sizes), strict=True)):
                    self.recall.keep(example, own.clone(), {layer: part[row].clone() for layer, part in parts.items()})
                task.advance(sum(map(len, taken)))

    @torch.no_grad()
    def read_spans(self, inputs: Inputs) -> Spans:
        """What it makes of each span of the answers, having read the same prompts and answers in its own tokens."""
        self._go_to(inputs["teacher_input_ids"].device)
        own = {name: inputs[f"teacher_{name}"] for name in ("input_ids", "predicts")}
        logits = answer_logits(self.model, own)
        of, count = inputs["teacher_span_of"], len(inputs["span_log_probs"])
        first = torch.searchsorted(of, torch.arange(count, device=of.device))
        return Spans(
            inputs["span_of"],
            span_log_probs(logits, inputs["teacher_target"], of, count),
            torch.log_softmax(logits[first], dim=-1),
        )

    def _go_to(self, device: torch.device) -> None:
        if self.model.device != device:
            self.model.to(device)

    def _states(self, inputs: Inputs) -> tuple[torch.Tensor, dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """What goes into the head, [n, width]; hidden states and attention maps: all at answer positions."""
        ids, at = inputs["input_ids"], inputs["predicts"]
        self._go_to(ids.device)
        if self.kept is not None:
            self.kept = self.kept.to(ids.device)
            ids = self.kept[ids]
        # As of the student, without a mask.
        states = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states[at], *(self.taps.take(at) if self.taps else ({}, {}))
