"""The same training by Olive: its LoRA, DoRA or QLoRA pass in the place of the trainer here."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from slmops.models.adapters.attach import adapter_weights
from slmops.models.adapters.files import ADAPTER, AdapterWeights
from slmops.models.adapters.four_bit import through_four_bits
from slmops.models.adapters.from_outside import Lora, put_lora, read_lora
from slmops.models.adapters.targets import linear_layers
from slmops.models.device import fastest_device
from slmops.models.source import load_model
from slmops.olive.configuration import OUTPUT, ROWS, Steps, configuration, write_model, write_rows
from slmops.olive.environment import olive_versions
from slmops.olive.run import run_olive, step_begun
from slmops.progress import Progress
from slmops.recipe.training import Optimisation
from slmops.recipe.tuning import Adapter
from slmops.train.adapted import check_adapter, load_base, merged
from slmops.train.examples import Example
from slmops.train.forecast import forecast
from slmops.train.made import sizes_of
from slmops.train.precision import resolve_precision
from slmops.train.trained import Trained
from slmops.train.trainer import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BASE = "base"


def train_through_olive(
    folder: Path,
    examples: Sequence[Example],
    settings: Optimisation,
    adapter: Adapter,
    *,
    validation: Sequence[Example],
    work: Path,
    seed: int,
    progress: Progress,
    log: logging.Logger,
    title: str,
) -> Trained:
    """Train `adapter` on the model in `folder` by Olive, and merge it here.

    What comes out is what `slmops.train.trainer.train` returns: the base in float32 with the adapter in it, the
    adapter, and the comparison of both on `validation`. A run that was killed goes on from the last checkpoint of
    Olive's trainer in `work`. The loss is a mean over the answer tokens of a batch, and over the batches of a step; a
    batch has as many rows whatever their length.

    Raises:
        BadInput: Olive is not installed, or the adapter does not go with the model.
        SlmopsError: Olive failed.
    """
    check_adapter(adapter, examples, context_of(folder), replaces_weights=[])
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    precision, device = resolve_precision(settings.precision, config), fastest_device()
    steps = Steps.of([len(example) for example in examples], settings)
    shutil.rmtree(work / _BASE, ignore_errors=True)
    write_model(folder, work / _BASE)
    write_rows(work / ROWS, ((example.prompt, example.answer) for example in examples))
    told = configuration(
        settings,
        adapter,
        steps,
        modules=modules_of(folder, settings.freeze_layers),
        model=_BASE,
        dtype="bfloat16" if precision.name == "bf16" else "float32",
        on_processor=device == "cpu",
        seed=seed,
    )
    expected = forecast(folder, examples, settings, adapter, seed=seed)
    tokens = settings.epochs * sum(map(len, examples))
    history = _History(work / "history.jsonl", steps, tokens, done=step_begun(work))
    with progress.task(title, steps.count - history.done, "steps") as task:

        def event(what: str, value: float) -> None:
            history.take(what, value)
            if what == "loss":
                task.advance(steps.log_every, text=value)

        peak = run_olive(told, work, told=log.info, event=event)
    trained, made, found = _taken(folder, read_lora(work / OUTPUT / ADAPTER), adapter, precision.dtype, device)
    size = sizes_of(trained)
    kept = merged(made, trained, validation)
    figures = {
        **precision.figures(),
        **size,
        "olive": olive_versions()["olive-ai"],
        "steps": float(steps.count),
        "estimated_memory_bytes": expected.memory.total,
        "estimated_seconds": expected.seconds,
        "peak_memory_bytes": peak,
        "adapter_bytes": found.size_bytes,
        **(kept.figures() if kept else {}),
    }
    return Trained(made.cpu().eval(), history.entries, int(tokens), history.seconds, figures, found)


def modules_of(folder: Path, first: int) -> list[str]:
    """Names of the linear maps of the model in `folder`, from layer `first` on; no weight of it is read."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return linear_layers(AutoModelForCausalLM.from_config(config), first)


def _taken(
    folder: Path, lora: Lora, adapter: Adapter, dtype: torch.dtype, device: str
) -> tuple[PreTrainedModel, PreTrainedModel, AdapterWeights]:
    """The model as it was trained, the base in float32 with the adapter on, and the adapter."""
    trained = load_base(folder, adapter, dtype=dtype, device=device)
    made = load_model(folder, dtype=torch.float32)
    if adapter.method == "qlora":
        through_four_bits(made, dtype)
    put_lora(trained, lora)
    put_lora(made, lora)
    return trained, made, adapter_weights(made, adapter)


class _History:
    """Losses and their times, written down as they come: of what a kill cut off, those before the checkpoint count.

    Attributes:
        entries: as `Trained.history`.
        seconds: of training alone.
    """

    def __init__(self, path: Path, steps: Steps, tokens: float, *, done: int) -> None:
        self._path, self._every, self._tokens_of_step = path, steps.log_every, tokens / steps.count
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.entries: list[dict[str, float]] = [e for e in map(json.loads, lines) if e["step"] <= done]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in self.entries), encoding="utf-8")
        self.done, self.seconds = done, self.entries[-1]["seconds"] if self.entries else 0.0
        self._before, self._since = self.seconds, time.monotonic()

    def take(self, event: str, value: float) -> None:
        """Take in what `run_olive` tells of."""
        if event == "begins":
            self._since = time.monotonic()
        elif event == "seconds":
            self.seconds = self._before + value
        else:
            self.done += self._every
            self.seconds = self._before + time.monotonic() - self._since
            tokens = int(self._tokens_of_step * self.done)
            self.entries.append({"step": self.done, "tokens": tokens, "seconds": self.seconds, "text": value})
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.entries[-1]) + "\n")
