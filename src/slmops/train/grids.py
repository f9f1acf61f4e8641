"""Which matrices of a model are rounded while it learns, and to what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from slmops.models.rounding import Grid
from slmops.recipe.compress import CompressSettings
from slmops.recipe.training import Rounding
from slmops.train.optimiser import Round

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def grids_of(model: PreTrainedModel, rounding: Rounding | CompressSettings | None) -> dict[torch.Tensor, Round]:
    """The grid that each matrix ships on: of the layers, and of head and embedding where they get four bits.

    Eight bits of head and embedding are left off: what they change is not worth the time of rounding in every step.
    """
    if rounding is None:
        return {}
    if isinstance(rounding, Rounding):
        rounding = CompressSettings(block_size=rounding.block_size, head=rounding.head)
    grid = Grid(8 if rounding.precision == "int8" else 4, rounding.block_size, rounding.symmetric)
    linear = [module.weight for module in model.get_decoder().modules() if isinstance(module, torch.nn.Linear)]
    return dict.fromkeys([*linear, *_ends(model, rounding)], grid)


def _ends(model: PreTrainedModel, rounding: CompressSettings) -> list[torch.Tensor]:
    """Head and embedding, where they ship with the bits that the layers have; a head that labels does not.

    Tied weights that ship twice, with unlike bits, learn as they are.
    """
    if rounding.precision != "int4":
        return []
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings().weight
    writes = isinstance(head, torch.nn.Linear)
    bits = {rounding.embedding or rounding.head} | ({rounding.head} if writes and head.weight is embedding else set())
    ends = [embedding] if bits == {"int4"} else []
    if writes and head.weight is not embedding and rounding.head == "int4":
        ends.append(head.weight)
    return ends
