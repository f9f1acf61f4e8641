"""A project that trains a tiny model on labelled rows, with settings to search."""

from __future__ import annotations

import json
from pathlib import Path

RECIPE = """\
name: tuned
task: {kind: classification, max_answer_tokens: 8}
data: {train: train.jsonl, test: test.jsonl, split: {validation: 0.3}}
student: {model: ./model}
train:
  method: lora
  epochs: 1
  learning_rate: 1.0e-6  # far too low
  batch_tokens: 256
  precision: fp32
  stop_early: {patience: 9, every: 1.0}
tune:
  trials: 4
  figure: loss
  space:
    train.learning_rate: {low: 1.0e-3, high: 3.0e-2, log: true}  # of lora
    train.adapter.rank: {low: 2, high: 8}
"""


def write_project(folder: Path, model: Path) -> Path:
    """A recipe, its rows and its model; the recipe's path."""
    rows = [
        {"input": f"{begin} {number}", "output": label}
        for number in range(1, 21)
        for begin, label in (("Where is order", "order_late"), ("Money back for", "refund"))
    ]
    for name, part in (("train", rows[:30]), ("test", rows[30:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (folder / "model").symlink_to(model)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"
