"""Norms as one kernel each, for a GPU: written out, one is nine, and sending them takes longer than computing them."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from slmops.models.device import fastest_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EPSILON = "variance_epsilon"
"""What those families call it that do no more than this."""

_PROBE_ROWS = 4
_NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""How far a sum in another order may be off."""


def fuse_norms(model: PreTrainedModel) -> int:
    """Have PyTorch's own kernel compute the model's root-mean-square norms (Zhang and Sennrich 2019), in place.

    Some families' norms do more, such as adding one to the weight: each is tried on a few random states, and stays as
    it is where the results differ.

    Returns:
        How many are computed so.
    """
    found = [module for module in model.modules() if _is_plain(module)]
    for module in found:
        module.forward = MethodType(_fused, module)
    return len(found)


def fuses(model: PreTrainedModel) -> bool:
    """Whether a training of `model` computes its norms so: on a GPU. It may be one without weights."""
    return fastest_device() == "cuda" and any(hasattr(module, _EPSILON) for module in model.modules())


def _fused(norm: Any, states: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(states, norm.weight.shape, norm.weight, getattr(norm, _EPSILON))


@torch.no_grad()
def _is_plain(module: Any) -> bool:
    """Whether a module divides states by their root mean square, multiplies them with its weight, and no more."""
    weight = getattr(module, "weight", None)
    if not hasattr(module, _EPSILON) or not isinstance(weight, torch.Tensor) or weight.ndim != 1:
        return False
    drawn = torch.randn(_PROBE_ROWS, len(weight), generator=torch.Generator().manual_seed(0))
    states = drawn.to(weight.device, weight.dtype)
    near = _NEAR.get(weight.dtype, 0.0)
    return torch.allclose(module(states), _fused(module, states), rtol=near, atol=near)
