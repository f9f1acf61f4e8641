"""A map with a low-rank update as one operation: written out, it makes its whole output four times."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fuse_updates(model: PreTrainedModel) -> int:
    """Have maps with one plain low-rank update of PEFT's compute W x + s B A x in one piece, in place.

    Those with dropout, with a variant such as DoRA, or above a matrix in four bits stay as they are.

    Returns:
        How many do.
    """
    from peft.tuners.lora.layer import Linear

    found: list[Any] = [module for module in model.modules() if type(module) is Linear and _is_plain(module)]
    for module in found:
        module.forward = MethodType(_forward, module)
    return len(found)


def _is_plain(module: Any) -> bool:
    if len(module.lora_A) != 1 or module.lora_variant or type(module.base_layer) is not torch.nn.Linear:
        return False
    (name,) = module.lora_A
    return isinstance(module.lora_dropout[name], torch.nn.Identity) and not module.lora_bias[name]


def _forward(module: Any, states: torch.Tensor) -> torch.Tensor:
    if module.merged or module.disable_adapters:
        return type(module).forward(module, states)  # type: ignore[no-any-return]
    (name,) = module.lora_A
    base = module.base_layer
    down, up, scale = module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]
    update: Any = _Updated.apply
    out: torch.Tensor = update(states, base.weight, base.bias, down, up, scale)
    return out


class _Updated(torch.autograd.Function):
    """W x + b + s B A x (Hu et al. 2021, section 4.1); W and b are still.

    What the backward pass reads is x, which maps of the same input share, and A x. Neither output nor gradient is ever
    there twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        flat = states.reshape(-1, states.shape[-1])
        inner = flat @ down.T
        out = torch.nn.functional.linear(flat, weight, bias).addmm_(inner, up.T, alpha=scale)
        ctx.save_for_backward(flat, weight, down, up, inner)
        ctx.scale = scale
        return out.view(*states.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, weight, down, up, inner = ctx.saved_tensors
        given = gradient.reshape(-1, gradient.shape[-1])
        behind = (given @ up).mul_(ctx.scale)
        below = None
        if ctx.needs_input_grad[0]:
            below = (given @ weight).addmm_(behind, down).view(*gradient.shape[:-1], -1)
        return below, None, None, behind.T @ flat, (given.T @ inner).mul_(ctx.scale), None
