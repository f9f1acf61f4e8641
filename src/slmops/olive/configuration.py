"""A training in the words of Olive 0.13: its run configuration, and the rows as it reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slmops.errors import BadInput
from slmops.pipeline.files import files_below, link_or_copy
from slmops.recipe.training import Optimisation
from slmops.recipe.tuning import OLIVE, Adapter

ROWS, CHECKPOINTS, CACHE, OUTPUT = "train.jsonl", "checkpoints", "cache", "olive"
_LOG_EVERY = 5
_IGNORED = -100
"""A label that no loss is taken at."""

_CHECKPOINTS = 10
"""As many in a training as are worth their time."""

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Steps:
    """How the trainer below Olive goes through the rows: it takes as many at once whatever their length.

    Attributes:
        rows: that go through the model at once.
        accumulate: batches in one optimiser step.
        count: optimiser steps.
        warmup: those in which the rate rises.
    """

    rows: int
    accumulate: int
    count: int
    warmup: int

    @property
    def log_every(self) -> int:
        """Steps between two losses that the trainer tells; a training of fewer tells one."""
        return min(_LOG_EVERY, self.count)

    @property
    def save_every(self) -> int:
        """Steps between two checkpoints, each at one that is told of."""
        return self.log_every * math.ceil(self.count / (_CHECKPOINTS * self.log_every))

    @classmethod
    def of(cls, lengths: Sequence[int], settings: Optimisation) -> Steps:
        """As many rows at once as `batch_tokens` has room for where each is as long as the longest.

        Args:
            lengths: tokens of each row.
        """
        rows = max(1, min(len(lengths), settings.batch_tokens // max(lengths)))
        a_pass = math.ceil(math.ceil(len(lengths) / rows) / settings.batches_per_step)
        count = max(1, math.ceil(settings.epochs * a_pass))
        return cls(rows, settings.batches_per_step, count, max(1, round(settings.warmup * count)))


def configuration(
    settings: Optimisation,
    adapter: Adapter,
    steps: Steps,
    *,
    modules: Sequence[str],
    model: str,
    dtype: Dtype,
    on_processor: bool | None,
    seed: int,
) -> dict[str, Any]:
    """What `olive run --config` takes, with paths below the folder that it is run in.

    Args:
        modules: names of the linear maps that get a part of the adapter; of `qlora` Olive takes all of the layers.
        model: a Hugging Face folder.
        on_processor: whether it has to be trained there; None leaves it to the machine.

    Raises:
        KeyError: Olive has no pass for the method; the recipe does not let it come so far.
    """
    named = {"double_quant": True, "save_quant_config": False} if adapter.method == "qlora" else {}
    return {
        "input_model": {"type": "HfModel", "model_path": model, "task": "text-generation"},
        # Where it is trained is PyTorch's business; Olive wants a system all the same.
        "systems": {
            "local_system": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [
            {
                "name": "train_data",
                "type": "DataContainer",
                "load_dataset_config": {
                    "type": "huggingface_dataset",
                    "data_name": "json",
                    "data_files": ROWS,
                    "split": "train",
                },
                # The rows are tokens already, with labels at the answers alone.
                "pre_process_data_config": {"type": "skip_pre_process"},
            }
        ],
        "passes": {
            "tune": {
                "type": OLIVE[adapter.method],
                "train_data_config": "train_data",
                "r": adapter.rank,
                "alpha": adapter.alpha,
                "lora_dropout": adapter.dropout,
                **({} if adapter.method == "qlora" else {"target_modules": list(modules)}),
                "torch_dtype": dtype,
                "device_map": None if on_processor else "auto",
                "training_args": _training_args(settings, steps, on_processor, seed),
                **named,
            }
        },
        "host": "local_system",
        "target": "local_system",
        "no_artifacts": True,
        "evaluate_input_model": False,
        "cache_dir": CACHE,
        "output_dir": OUTPUT,
        "log_severity_level": 1,
    }


def _training_args(settings: Optimisation, steps: Steps, on_processor: bool | None, seed: int) -> dict[str, Any]:
    """As of `transformers.TrainingArguments`: the optimiser of the trainer here, as far as both have it."""
    return {
        "per_device_train_batch_size": steps.rows,
        "gradient_accumulation_steps": steps.accumulate,
        "max_steps": steps.count,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": steps.warmup,
        "weight_decay": settings.weight_decay,
        "adam_beta2": 0.98,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "gradient_checkpointing": settings.checkpoint_activations,
        "logging_steps": steps.log_every,
        "disable_tqdm": True,
        "save_strategy": "steps",
        "save_steps": steps.save_every,
        "save_total_limit": 2,
        "output_dir": CHECKPOINTS,
        "seed": seed,
        **({"use_cpu": True} if on_processor else {}),
    }


def write_rows(path: Path, rows: Iterable[tuple[Sequence[int], Sequence[int]]]) -> None:
    """Write prompts and answers, as tokens, the way Olive's trainer takes them: the loss is taken at answers alone."""
    with path.open("w", encoding="utf-8") as file:
        for prompt, answer in rows:
            row = {
                "input_ids": [*prompt, *answer],
                "attention_mask": [1] * (len(prompt) + len(answer)),
                "labels": [_IGNORED] * len(prompt) + list(answer),
            }
            file.write(json.dumps(row) + "\n")


def write_model(folder: Path, out: Path) -> None:
    """Put the Hugging Face folder `folder` below `out` with a pad token, which Olive's trainer fills batches up with.

    Nothing reads it: the mask leaves it out. Where the tokenizer has none it is the end token.

    Raises:
        BadInput: the tokenizer has neither.
    """
    config = "tokenizer_config.json"
    for name in files_below(folder):
        if name != config:
            link_or_copy(folder / name, out / name)
    told: Mapping[str, Any] = json.loads((folder / config).read_text(encoding="utf-8"))
    pad = told.get("pad_token") or told.get("eos_token")
    if not pad:
        raise BadInput(
            "the tokenizer has neither a pad nor an end token, and Olive needs one", hint="set train.backend: slmops"
        )
    (out / config).write_text(json.dumps({**told, "pad_token": pad}, indent=2) + "\n", encoding="utf-8")
