"""Choosing the values of a model's weights on the user's rows, before it is exported."""

from __future__ import annotations

from pathlib import Path

from slmops.compress import awq, gptq, wanda
from slmops.compress.calibration import calibration_texts
from slmops.compress.pack import BITS
from slmops.compress.sensitivity import costliest, layer_costs
from slmops.errors import BadInput
from slmops.models.device import fastest_device
from slmops.models.rounding import Grid
from slmops.models.source import load_model, save_model
from slmops.progress import Progress
from slmops.recipe.compress import CompressSettings

SENSITIVITY_TOKENS = 1024
"""Enough to rank layers by; each costs a pass of the layers above it."""


def choose_values(
    model: Path, data: Path, settings: CompressSettings, *, scratch: Path, progress: Progress
) -> tuple[Path, list[int], dict[str, float]]:
    """Prune, scale and round the model in folder `model` as `settings` say: in this order, each on what the last left.

    Args:
        data: what the data stage wrote.

    Returns:
        A folder with the model as it is to be exported, the layers that stay in eight bits, and figures.

    Raises:
        BadInput: the rows are too few, or the layers are.
    """
    texts = calibration_texts(data, model, settings.calibration_tokens)
    figures = {"calibration_tokens": float(sum(map(len, texts)))}
    loaded = load_model(model, device=fastest_device()).float()
    layers = loaded.config.num_hidden_layers
    if settings.int8_layers >= layers:
        raise BadInput(
            f"compress.int8_layers {settings.int8_layers}: the model has {layers} layers",
            hint="set compress.precision: int8 for all of them",
        )
    if settings.sparsity:
        figures |= wanda.prune(loaded, texts, settings.sparsity, progress)
    int8: list[int] = []
    if settings.packed:
        grid = Grid(BITS[settings.precision], settings.block_size, settings.symmetric)
        if settings.int8_layers:
            costs = layer_costs(loaded, _some(texts, SENSITIVITY_TOKENS), grid, progress)
            int8 = costliest(costs, settings.int8_layers)
            figures |= {f"rounding_cost_of_layer_{i}": cost for i, cost in enumerate(costs)}
        if settings.algorithm in ("awq", "awq-gptq"):
            figures |= awq.scale(loaded, texts, grid, progress, int8_layers=int8)
        if settings.algorithm in ("gptq", "awq-gptq"):
            figures |= gptq.quantise(loaded, texts, grid, progress, int8_layers=int8)
    save_model(loaded, scratch / "chosen", tokenizer_from=model)
    return scratch / "chosen", int8, figures


def _some(texts: list[tuple[int, ...]], tokens: int) -> list[tuple[int, ...]]:
    """The first texts, some `tokens` in all."""
    taken: list[tuple[int, ...]] = []
    for text in texts:
        if sum(map(len, taken)) >= tokens:
            break
        taken.append(text)
    return taken
