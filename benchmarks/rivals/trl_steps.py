"""Runs in the environment of trl.lock: one pass of one of TRL's trainers over given rows, every step timed.

Run as `trl_steps.py WORK JOB`; the job is `JOB.json` in the folder WORK, and what was found goes to `JOB.found.json`.
The rows come as tokens, so that both sides train on the same ones; how they are batched is up to TRL.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measuring import peak_mb
from peft import LoraConfig
from stepping import alike, steps
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling


class Steps(TrainerCallback):
    """Tokens and seconds of each step, by the clock and of cores; time between two belongs to the later one."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.tokens: list[int] = []

    def watch(self, trainer: Any) -> None:
        """Count what each batch holds besides padding. Batches are made in the order in which they are trained on."""
        inner = trainer.data_collator

        def collate(rows: Any) -> Any:
            batch = inner(rows)
            # Without a mask there is no padding: rows lie one behind the other.
            self.tokens.append(int(batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum()))
            return batch

        trainer.data_collator = collate
        trainer.add_callback(self)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), time.process_time()))

    def found(self) -> list[dict[str, float]]:
        return steps(self.tokens, self.ends)


def settings(job: dict[str, Any], work: Path) -> dict[str, Any]:
    """TRL's arguments: as near to our optimiser as it allows, all else as TRL has it but for the job's options."""
    options = alike(job) | {
        "output_dir": str(work / "trl"),
        "max_length": None,
        "report_to": [],
    }
    options |= job["options"]
    if options.get("packing"):
        # A pack takes the place of a batch: as many tokens as our own batches may hold.
        options |= {"max_length": job["optimisation"]["batch_tokens"], "per_device_train_batch_size": 1}
    return options


def dataset(rows: list[dict[str, list[int]]]) -> Dataset:
    """Tokens and labels, which TRL takes as they are; the loss is on answers alone."""
    return Dataset.from_list(
        [
            {
                "input_ids": row["prompt"] + row["answer"],
                "labels": [-100] * len(row["prompt"]) + row["answer"],
            }
            for row in rows
        ]
    )


def fine_tuning(model: Any, tokenizer: Any, job: dict[str, Any], work: Path) -> SFTTrainer:
    arguments, adapter = SFTConfig(**settings(job, work)), None
    if job.get("adapter"):
        one = job["adapter"]
        modules = one["target_modules"]
        adapter = LoraConfig(r=one["rank"], lora_alpha=one["alpha"], target_modules=modules, task_type="CAUSAL_LM")
    rows = dataset(job["rows"])
    return SFTTrainer(model, args=arguments, train_dataset=rows, processing_class=tokenizer, peft_config=adapter)


def distillation(model: Any, tokenizer: Any, job: dict[str, Any], work: Path) -> GKDTrainer:
    """Generalised knowledge distillation on given text alone (lmbda 0) with the forward divergence (beta 0)."""
    arguments = GKDConfig(lmbda=0.0, beta=0.0, temperature=1.0, **settings(job, work))
    teacher = AutoModelForCausalLM.from_pretrained(job["teacher"], dtype=torch.float32)
    return GKDTrainer(
        model,
        teacher_model=teacher,
        args=arguments,
        train_dataset=dataset(job["rows"]),
        processing_class=tokenizer,
        # Its own collator wants conversations, and would make other tokens of them than we do.
        data_collator=DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id),
    )


def losses(trainer: Any, job: dict[str, Any]) -> dict[str, float]:
    """The trainer's own loss on the job's first rows, as one batch of its own making; in nats per answer token."""
    rows = list(dataset(job["rows"][: job["probe"]]))
    trainer.model.eval()
    with torch.no_grad():
        # A pack says its longest row as a plain number.
        made, device = trainer.data_collator(rows).items(), trainer.model.device
        batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in made}
        own = float(trainer.compute_loss(trainer.model, dict(batch)))
        if job["kind"] == "sft":
            return {"text": own}
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        text = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    return {"forward_kl": own, "text": float(text)}


def main(work: Path, name: str) -> None:
    job = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    trainer = {"sft": fine_tuning, "kd": distillation}[job["kind"]](model, tokenizer, job, work)
    start, timed = losses(trainer, job), Steps()
    timed.watch(trainer)
    trainer.train()
    peak = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else peak_mb()
    found = {"steps": timed.found(), "start": start, "end": losses(trainer, job), "peak_mb": peak}
    (work / f"{name}.found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
