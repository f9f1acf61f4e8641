"""Runs in the environment of llamafactory.lock: LLaMA-Factory trains a LoRA over given rows, every step timed.

Run as `llamafactory_steps.py WORK JOB`; the job is `JOB.json` in the folder WORK, and what was found goes to
`JOB.found.json`. The rows come as tokens, by LLaMA-Factory's own door for data that are tokens already
(`tokenized_path`); batches and padding are its own.
"""

from __future__ import annotations

import importlib.machinery
import json
import sys
import time
import types
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from datasets import Dataset, DatasetDict
from measuring import peak_mb
from stepping import alike, steps


def without_sound() -> None:
    """LLaMA-Factory imports torchaudio for rows with sound, and there are none; it has no build for this torch."""
    transformers.utils.is_torchaudio_available()
    stands_in = types.ModuleType("torchaudio")
    stands_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = stands_in


class Steps(transformers.TrainerCallback):
    """Tokens and seconds of each step, without padding; loss on some rows before the first and after the last."""

    def __init__(self, rows: list[dict[str, list[int]]]) -> None:
        self.rows = rows
        self.ends: list[tuple[float, float]] = []
        self.tokens: list[int] = []
        self.found: dict[str, Any] = {}

    def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
        self.found["start"] = {"text": loss(model, self.rows)}
        self.found["dtype"] = str(model.dtype)
        model.register_forward_pre_hook(self._read, with_kwargs=True)
        self.ends.append((time.perf_counter(), time.process_time()))

    def _read(self, model: Any, _arguments: Any, named: dict[str, Any]) -> None:
        if model.training:
            self.tokens.append(int(named["attention_mask"].sum()))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def on_train_end(self, *_: Any, model: Any, **__: Any) -> None:
        self.found["peak_mb"] = peak_mb()
        self.found["end"] = {"text": loss(model, self.rows)}
        self.found["steps"] = steps(self.tokens, self.ends)


def loss(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """Mean cross-entropy of the answers' tokens, in nats, one row after the other."""
    nats, count, was = 0.0, 0, model.training
    model.eval()
    with torch.no_grad():
        for row in rows:
            ids, answer = torch.tensor([row["prompt"] + row["answer"]]), len(row["answer"])
            logits = model(input_ids=ids).logits[0, -answer - 1 : -1].float()
            nats += float(torch.nn.functional.cross_entropy(logits, ids[0, -answer:], reduction="sum"))
            count += answer
    model.train(was)
    return nats / count


def settings(job: dict[str, Any], data: Path, out: Path) -> dict[str, Any]:
    """LLaMA-Factory's arguments: as near to our optimiser as it allows, all else as it has it but for the options."""
    adapter = job["adapter"]
    return alike(job) | {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": job["model"],
        "template": "chatml",
        "finetuning_type": "lora",
        "lora_rank": adapter["rank"],
        "lora_alpha": adapter["alpha"],
        "lora_dropout": 0.0,
        "lora_target": ",".join(adapter["target_modules"]),
        "dataset": "rows",
        "tokenized_path": str(data),
        "cutoff_len": 1024,
        "output_dir": str(out),
        "report_to": "none",
        **job["options"],
    }


def rows_on_disk(rows: list[dict[str, list[int]]], folder: Path) -> Path:
    """Tokens and labels as LLaMA-Factory keeps them; the loss is on answers alone."""
    made = [
        {
            "input_ids": row["prompt"] + row["answer"],
            "attention_mask": [1] * (len(row["prompt"]) + len(row["answer"])),
            "labels": [-100] * len(row["prompt"]) + row["answer"],
        }
        for row in rows
    ]
    DatasetDict({"train": Dataset.from_list(made)}).save_to_disk(str(folder))
    return folder


def main(work: Path, name: str) -> None:
    job = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    without_sound()
    from llamafactory.train.tuner import run_exp

    steps = Steps(job["rows"][: job["probe"]])
    data = rows_on_disk(job["rows"], work / f"{name}.rows")
    # It refuses to write where a run has written before.
    with TemporaryDirectory(dir=work) as out:
        run_exp(settings(job, data, Path(out)), callbacks=[steps])
    (work / f"{name}.found.json").write_text(json.dumps(steps.found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
