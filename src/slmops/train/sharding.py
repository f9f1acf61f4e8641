"""A model shared out over several processes: each holds a part of every weight, gradient and moment (FSDP).

PyTorch's `fully_shard` does it (Zhao et al. 2023), layer by layer. A step of the optimiser goes element by element, so
float32 masters of shards are shards of the masters. transformers' own `fsdp=True` is not used: through accelerate it
exchanges the optimiser's tensors for the model's shards, and would lose the masters; and without a GPU it does nothing.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from slmops.errors import BadInput
from slmops.models.device import fastest_device
from slmops.recipe.compress import CompressSettings
from slmops.recipe.objective import CustomTerm, Objective
from slmops.recipe.training import WHOLE, Fsdp, Optimisation, Rounding
from slmops.recipe.tuning import Adapter
from slmops.train.objectives.base import OF_ROWS, OF_TEACHER
from slmops.train.objectives.make import all_needs
from slmops.train.objectives.observe import run_to_answers
from slmops.train.processes import Processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_sharding(
    processes: int,
    settings: Optimisation,
    objective: Objective,
    *,
    rounding: Rounding | CompressSettings | None,
    normalise: bool,
    labels: bool,
    adapter: Adapter | None,
) -> None:
    """Refuse what needs whole weights, or more processes than there are.

    Args:
        labels: whether another head takes the place of the model's own.

    Raises:
        BadInput: says which.
    """
    if processes == 1:
        raise BadInput(
            "fsdp shares a model out over several processes, and this is one",
            hint="set `processes` beside it, or leave fsdp out",
        )
    for name in ("accumulate", "checkpoint_activations"):
        if getattr(settings, name) != "auto":
            continue
        raise BadInput(
            f"{name}: auto is decided in each process, and with fsdp all must do the same",
            hint="set it to a number" if name == "accumulate" else "set it to true or false",
        )
    own = [term for term in objective if isinstance(term, CustomTerm)]
    method = adapter.method if adapter else "full"
    needs = all_needs([term for term in objective if term not in own])
    needs_whole = {
        "freeze_layers": settings.freeze_layers > 0,
        "round_to_int4": rounding is not None,
        "normalise": normalise,
        "a head that labels": labels,
        f"method: {method}": method in WHOLE,
        "terms of one's own": bool(own),
        "terms that run the teacher beside the student": bool(needs & OF_TEACHER),
        "terms that compare the rows of a batch": bool(needs & OF_ROWS),
    }
    if refused := [name for name, wanted in needs_whole.items() if wanted]:
        raise BadInput(
            f"fsdp does not go with {refused[0]}: a process holds a part of each weight only",
            hint="it goes with the kind text and divergences with `logits: stored`, with accumulate, "
            "checkpoint_activations, stop_early and either precision",
        )


def shard(model: PreTrainedModel, fsdp: Fsdp, processes: Processes) -> None:
    """Keep this process's part of `model`, in place, on the GPU where there is one.

    Embeddings, last norm and head are one unit with the model itself, each layer is one of its own.
    """
    mesh = init_device_mesh(fastest_device(), (processes.count,))
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=fsdp.reshard_after_forward)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Gradients are added up, not averaged: a process's loss is its share of the step already.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    # Weights are gathered when a forward method begins, and we run the decoder and the head without the model's own.
    model.answer_logits = MethodType(run_to_answers, model)
    register_fsdp_forward_method(model, "answer_logits")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that may be shared out; then every process must ask for it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor that may be shared out; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(state: Any, *, keep: bool) -> Any:
    """A nested state with whole tensors in main memory, one after the other; where not `keep`, without them.

    Every process must call it at the same time.
    """
    if isinstance(state, torch.Tensor):
        tensor = whole(state.detach())
        return tensor.cpu() if keep else None
    if isinstance(state, dict):
        return {key: gathered(value, keep=keep) for key, value in state.items()}
    if isinstance(state, list):
        return [gathered(value, keep=keep) for value in state]
    return state


def as_part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole `tensor` where `like`, of the same shape, is one; else the tensor as it is."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
