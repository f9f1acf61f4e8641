"""What a training will need of memory, added up before it starts instead of found out when it is killed."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from slmops.free_memory import free_bytes
from slmops.models.adapters.four_bit import packed_bytes
from slmops.models.adapters.targets import linear_layers, sublayer_ends
from slmops.models.fused_norms import fuses
from slmops.recipe.training import Optimisation
from slmops.recipe.tuning import LOW_RANK, Adapter
from slmops.train.examples import Example, in_pieces
from slmops.train.on_policy import Writer
from slmops.train.shared import shared_tokens, shares
from slmops.train.trunk import states_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FLOAT32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes that a training needs at its peak.

    Attributes:
        weights: of the model, in the type it computes in; where it is shared out, also what is gathered at a time.
        gradients: in that type, and once more in float32 while a step is taken where that is another.
        optimiser: two moments of each moving weight, and a float32 master where the model computes with another value.
        activations: what the backward pass of the largest batch reads, the logits of its answers, and the gradients of
            one layer's values at a time.
        states: what the still layers put out, where it is kept for every example.
        teacher: weights of the teacher that runs beside the student.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    states: int = 0
    teacher: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def available_bytes(processes: int | None = None) -> int:
    """Memory this process can take without swapping; on the GPU where there is one.

    Processes that train together share their machine's memory evenly: as many as are asked about, or as a launcher
    started.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return free_bytes() // (processes or int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def needed(
    model: PreTrainedModel,
    batches: Sequence[Sequence[int]],
    examples: Sequence[Example],
    settings: Optimisation,
    *,
    on_grid: Collection[torch.Tensor] = (),
    pieces: int = 1,
    parts: int = 1,
    writer: Writer | None = None,
    whole: bool = False,
    alone: bool = False,
    teacher_bytes: int = 0,
    adapter: Adapter | None = None,
) -> Memory:
    """What training `model` on `batches` of `examples` needs; still weights have no gradient and no master.

    Args:
        on_grid: weights that are rounded, whatever their type.
        pieces: that the rows of a batch go through the model in, one after the other.
        parts: processes that weights, gradients and the optimiser's state are shared out over.
        writer: the answers of its batches count as the longest that it may write. The cache that they are written with
            is gone before the backward pass, which keeps several times as much of every token.
        whole: still layers are run again in every pass, and nothing of them is kept.
        alone: rows never share what they begin with; see `shares`.
        adapter: what of `model` moves, where that is one.
    """
    itemsize = model.dtype.itemsize
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    moving = sum(weight.numel() for weight in weights)
    masters = sum(weight.numel() for weight in weights if itemsize != _FLOAT32 or weight in on_grid)
    in_step = 0 if itemsize == _FLOAT32 else _FLOAT32 * moving
    read_once, own = shares(model, settings, whole=whole, alone=alone), adapter.tokens if adapter else 0
    activations = []
    for number, batch in enumerate(batches):
        longest = writer.how.max_tokens if writer and number in writer.batches else None
        for piece in in_pieces(batch, pieces):
            answers = [longest or len(examples[i].answer) for i in piece]
            length = max(len(examples[i].prompt) + answer for i, answer in zip(piece, answers, strict=True))
            length += own
            common = shared_tokens([examples[i] for i in piece]) if read_once else 0
            common += own if common else 0
            sizes = {"rows": len(piece), "length": length - common, "behind": common, "answer_tokens": sum(answers)}
            kept = activation_bytes(model, **sizes, settings=settings, adapter=adapter)
            if common:
                kept += activation_bytes(
                    model, rows=1, length=common, answer_tokens=0, settings=settings, adapter=adapter
                )
            for rows, most in _texts([examples[i] for i in piece]):
                most += own
                kept += activation_bytes(
                    model, rows=rows, length=most, answer_tokens=0, settings=settings, adapter=adapter
                )
            activations.append(kept + _layer_bytes(model, len(piece), length - common, common, settings, adapter))
    return Memory(
        weights=weights_bytes(model, adapter) // parts + (_gathered_bytes(model) if parts > 1 else 0),
        gradients=(moving * itemsize + in_step) // parts,
        optimiser=_FLOAT32 * (2 * moving + masters) // parts,
        activations=max(activations),
        states=0 if whole else states_bytes(model, settings.freeze_layers, examples),
        teacher=teacher_bytes,
    )


def _texts(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """How many texts a batch has besides, and the tokens of the longest: of its inputs, and of each answer once."""
    texts = [example.texts for example in examples if example.texts]
    return [(len(side), max(map(len, side))) for side in map(set, zip(*texts, strict=True))]


def weights_bytes(model: PreTrainedModel, adapter: Adapter | None) -> int:
    """Bytes of all weights in the type that `model` computes in; the layers' matrices in four bits below a QLoRA."""
    if adapter is None or adapter.method != "qlora":
        return int(sum(weight.numel() for weight in model.parameters()) * model.dtype.itemsize)
    matrices = [_matrix(model, name) for name in linear_layers(model)]
    packed = {matrix.weight for matrix in matrices}
    others = sum(weight.numel() for weight in model.parameters() if weight not in packed)
    return int(others * model.dtype.itemsize + sum(map(packed_bytes, matrices)))


def _gathered_bytes(model: PreTrainedModel) -> int:
    """Weights that each process holds whole for a moment: all outside of the layers, a layer, and the next one."""
    layers = [parameters_of(layer) for layer in model.get_decoder().layers]
    return int((parameters_of(model) - sum(layers) + 2 * max(layers)) * model.dtype.itemsize)


def parameters_of(model: torch.nn.Module) -> int:
    """Weights of `model`, those of an adapter included; one in four bits counts as one."""
    return sum(_count(weight) for weight in model.parameters())


def _count(weight: torch.Tensor) -> int:
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else int(state.shape.numel())


def _matrix(model: PreTrainedModel, name: str) -> Any:
    """The linear map called `name`, below its adapter where it has one."""
    module = model.get_submodule(name)
    return getattr(module, "base_layer", module)


def activation_bytes(
    model: PreTrainedModel,
    *,
    rows: int,
    length: int,
    answer_tokens: int,
    settings: Optimisation,
    behind: int = 0,
    adapter: Adapter | None = None,
) -> int:
    """What autograd keeps of one batch for its backward pass, counted over the operations of a Llama-like layer.

    Of each layer that moves and each token: both norms' input in float32 and two values behind it, or on a GPU the
    input as it is and one value; queries, keys and
    values of every head, what attention puts out, and that once more for the projection; and gate, activation, upward
    projection and their product. Recomputed layers keep their input alone, and one of them all the rest at a time.
    Of each answer token: logits and their logarithms in float32 and both gradients. Still weights do not ask for their
    inputs; what an adapter keeps besides is in `_adapter_values`.

    Args:
        behind: tokens that all rows begin with and that a pass of their own has read: each row has keys and values of
            them, and nothing else.
    """
    config = model.config.get_text_config()
    itemsize, tokens = model.dtype.itemsize, rows * length
    layer, layers = (
        _layer_bytes(model, rows, length, behind, settings, adapter),
        config.num_hidden_layers - settings.freeze_layers,
    )
    inputs = layers * tokens * itemsize * config.hidden_size
    kept = inputs + layer if settings.checkpoint_activations else layers * layer
    logits = answer_tokens * config.vocab_size * (4 * _FLOAT32 + 2 * itemsize)
    return int(kept + logits)


def _layer_bytes(
    model: PreTrainedModel, rows: int, length: int, behind: int, settings: Optimisation, adapter: Adapter | None
) -> int:
    """What autograd keeps of one layer; see `activation_bytes`."""
    config = model.config.get_text_config()
    itemsize, tokens = model.dtype.itemsize, rows * length
    hidden, heads = config.hidden_size, config.num_attention_heads
    queries = heads * (getattr(config, "head_dim", None) or hidden // heads)
    inner = getattr(config, "intermediate_size", None)
    inner = inner if isinstance(inner, int) else 4 * hidden
    values, wide = 4 * hidden + 5 * queries + 4 * inner, 0 if fuses(model) else 2 * hidden
    if adapter:
        values += _adapter_values(model, adapter, hidden=hidden, queries=queries, inner=inner, settings=settings)
    layer = tokens * (_FLOAT32 * wide + itemsize * values) + rows * behind * 2 * queries * itemsize
    if getattr(config, "_attn_implementation", None) == "eager":
        layer += rows * heads * length * (length + behind) * (_FLOAT32 + itemsize)
    return int(layer)


def _adapter_values(
    model: PreTrainedModel, adapter: Adapter, *, hidden: int, queries: int, inner: int, settings: Optimisation
) -> int:
    """What a layer keeps of a token more than one whose own weights move; less than nothing where it keeps less.

    A norm whose weight is still needs nothing behind its input, but where it is one kernel. A low-rank update reads the
    inputs that the matrix would have read, and keeps what is between its two; DoRA its output besides, to be rescaled;
    with dropout each update keeps inputs of its own. Others leave the inputs of matrices alone: a bottleneck keeps its
    own, and IA³ what it rescales.
    """
    names = linear_layers(model, settings.freeze_layers)
    layers = max(1, int(model.config.get_text_config().num_hidden_layers) - settings.freeze_layers)
    matrices = [_matrix(model, name) for name in names[: len(names) // layers]]
    outputs = sum(int(matrix.out_features) for matrix in matrices)
    still = 0 if fuses(model) else -2 * hidden
    if adapter.method in LOW_RANK:
        again = sum(int(matrix.in_features) for matrix in matrices) if adapter.dropout else 0
        return still + len(matrices) * adapter.rank + again + (outputs if adapter.method == "dora" else 0)
    unread = still - 2 * hidden - queries - inner
    if adapter.method == "bottleneck":
        ends = len(sublayer_ends(model, settings.freeze_layers)) // layers
        return int(unread + ends * (hidden + 2 * adapter.width))
    if adapter.method == "ia3":
        return unread + 3 * queries + inner
    return unread
