"""AdamW that keeps float32 master weights behind a model in bfloat16 or on a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch

from slmops.train.sharding import as_part_of, own_part

_MASTER = "master"


class Round(Protocol):
    """Puts a float32 weight on a grid; into `out` where one of its shape and type is given."""

    def __call__(self, weight: torch.Tensor, /, *, out: torch.Tensor | None = None) -> torch.Tensor: ...


class MasterAdamW(torch.optim.AdamW):
    """AdamW on float32 masters of the model's weights (Micikevicius et al. 2018, section 3.1).

    A bfloat16 weight has eight bits of mantissa: a step of 1e-4 of its size would round to nothing. The
    model computes in bfloat16, where this processor is fastest; the step is taken on the float32 masters,
    which are part of the optimiser's state and so of every checkpoint. A float32 weight on no grid is its own master.
    """

    def __init__(
        self,
        weights: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        rounding: Mapping[torch.Tensor, Round] | None = None,
    ) -> None:
        """Optimise `weights`; where `rounding` names one of them, the model gets its rounded master.

        The gradient at the rounded weight moves the master as if rounding were the identity: the straight-through
        estimator (Bengio et al. 2013, section 4), as in quantisation-aware training (Jacob et al. 2018).
        """
        self._rounding = rounding or {}
        self._weights: list[torch.Tensor] = [weight for weight in weights if weight.requires_grad]
        masters = [self._master(weight).requires_grad_() for weight in self._weights]
        super().__init__(masters, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)
        self.write_back()

    def _master(self, weight: torch.Tensor) -> torch.Tensor:
        """A float32 copy of `weight`; or itself, sharing its memory, where the model computes with the master."""
        if weight.dtype == torch.float32 and weight not in self._rounding:
            return weight.detach()
        return weight.detach().float().clone()

    @property
    def masters(self) -> list[torch.Tensor]:
        """Float32 weights, in the order they were given."""
        return list(self.param_groups[0]["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        moved = [(weight.grad, master) for weight, master in zip(self._weights, self.masters, strict=True)]
        pairs = [(grad, master) for grad, master in moved if grad is not None]
        for (_, master), grad in zip(pairs, _in_float32([grad for grad, _ in pairs]), strict=True):
            master.grad = grad
        loss: float | None = super().step(closure)
        for master in self.masters:
            master.grad = None
        self.write_back()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: ARG002 - torch's signature
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the masters into the model, rounded to its type, or to their grid where they have one."""
        plain = []
        for weight, master in zip(self._weights, self.masters, strict=True):
            grid = self._rounding.get(weight)
            if grid is None:
                # Both may be one memory still; processes that train together move the model's to a place of its own.
                if not weight.data_ptr() or weight.data_ptr() != master.data_ptr():
                    plain.append((own_part(weight), own_part(master)))
            elif weight.dtype == master.dtype:
                grid(master, out=weight)
            else:
                weight.copy_(grid(master))
        _copy(plain)

    @torch.no_grad()
    def rounded(self) -> list[torch.Tensor]:
        """The masters as the model sees them, in float32."""
        pairs = zip(self._weights, self.masters, strict=True)
        return [self._rounding[weight](master) if weight in self._rounding else master for weight, master in pairs]

    def tensors(self) -> dict[str, torch.Tensor]:
        """What it goes on from: `master.N` and, once a step was taken, its moments `exp_avg.N` and the like."""
        found = {f"{_MASTER}.{number}": master.detach() for number, master in enumerate(self.masters)}
        for number, master in enumerate(self.masters):
            found |= {f"{name}.{number}": value for name, value in self.state.get(master, {}).items()}
        return found

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from them; whole tensors serve an optimiser of shards too."""
        for name, value in tensors.items():
            kind, _, number = name.rpartition(".")
            master = self.masters[int(number)]
            own = as_part_of(value, master).to(master.device)
            if kind == _MASTER:
                master.copy_(own)
            else:
                self.state[master][kind] = own
        self.write_back()


def _in_float32(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each in float32; what is that already, is taken as it is."""
    wide = [each if each.dtype == torch.float32 else torch.empty_like(each, dtype=torch.float32) for each in tensors]
    pairs = zip(wide, tensors, strict=True)
    _copy([(own_part(to), own_part(of)) for to, of in pairs if to is not of])
    return wide


def _copy(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """The second of each pair into the first, all in few kernels: a GPU waits for each to be sent."""
    if pairs:
        to, of = zip(*pairs, strict=True)
        torch._foreach_copy_(list(to), list(of))
