"""Several adapters made one, through PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.models.adapters.attach import merge, plain_config
from slmops.models.adapters.files import AdapterWeights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MERGED = "merged"


def combine(
    model: PreTrainedModel, adapters: Sequence[tuple[Path, float]], method: str, *, density: float | None, seed: int
) -> AdapterWeights:
    """Make one adapter of several low-rank ones and merge it into the float32 weights of `model`.

    Args:
        model: the base that all were trained beside.
        adapters: folder of each, in PEFT's form, and how often its update counts.
        method: linear, cat (the exact sum of the updates), ties (Yadav et al. 2023), dare_linear or dare_ties (Yu et
            al. 2024). All but cat join the factors A and B by themselves, so a product of sums comes out, which is the
            sum of the products only where one adapter counts.
        density: share of the entries that ties, dare_linear and dare_ties keep; None for the others.
        seed: of what dare_linear and dare_ties draw.

    Returns:
        The one adapter, float32, its update counting once.

    Raises:
        SlmopsError: a merged weight is no number.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    # PEFT takes an adapter's name for the name of a module, in which no dot may stand.
    names = [f"part{n}" for n in range(len(adapters))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        several = PeftModel.from_pretrained(model, adapters[0][0], adapter_name=names[0])
        for name, (folder, _) in zip(names[1:], adapters[1:], strict=True):
            several.load_adapter(folder, adapter_name=name)
        # What is merged has its scales in its factors; as rslora PEFT would scale it by √rank once more.
        several.peft_config[names[0]].use_rslora = False
        weights = [weight for _, weight in adapters]
        several.add_weighted_adapter(names, weights, _MERGED, combination_type=method, density=density)
    several.set_adapter(_MERGED)
    state = get_peft_model_state_dict(several, adapter_name=_MERGED, save_embedding_layers=False)
    tensors = {name: value.detach().float().cpu().clone() for name, value in state.items()}
    found = AdapterWeights(plain_config(several.peft_config[_MERGED].to_dict()), tensors)
    merge(several.get_base_model())
    return found
