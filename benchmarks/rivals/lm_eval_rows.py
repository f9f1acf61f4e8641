"""Runs in the environment of lm-eval.lock: one task of the harness on one model, timed without loading it.

Prints one JSON object: seconds of the evaluation, and the choice that was taken for every row.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def main(folder: str, tasks: str, task: str, threads: str, batch: str) -> None:
    torch.set_num_threads(int(threads))
    model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=int(batch))
    manager = TaskManager(include_path=tasks, include_defaults=False)
    begun = time.perf_counter()
    found = simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True)
    seconds = time.perf_counter() - begun
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    scores = [[float(score) for score, _ in sample["filtered_resps"]] for sample in samples]
    chosen = [max(range(len(row)), key=row.__getitem__) for row in scores]
    Path(tasks, "found.json").write_text(json.dumps({"seconds": seconds, "chosen": chosen}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
