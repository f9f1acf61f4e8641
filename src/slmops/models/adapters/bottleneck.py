"""Bottleneck adapters: a small network behind each attention and feed-forward part (Houlsby et al. 2019)."""

from __future__ import annotations

import torch


class Bottleneck(torch.nn.Module):
    """A linear map that stays as it is, and behind it x + W_up · gelu(W_down · x + b_down) + b_up.

    W_up and b_up begin as zeros, so that an untrained one changes nothing.
    """

    def __init__(self, base_layer: torch.nn.Linear, width: int) -> None:
        super().__init__()
        weight = base_layer.weight
        device, dtype = weight.device, weight.dtype
        self.base_layer = base_layer
        self.down = torch.nn.Linear(base_layer.out_features, width, device=device, dtype=dtype)
        self.up = torch.nn.Linear(width, base_layer.out_features, device=device, dtype=dtype)
        torch.nn.init.zeros_(self.up.weight)
        torch.nn.init.zeros_(self.up.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] → [..., out]."""
        outputs: torch.Tensor = self.base_layer(inputs)
        change: torch.Tensor = self.up(torch.nn.functional.gelu(self.down(outputs)))
        return outputs + change
