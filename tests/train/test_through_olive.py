"""Olive 0.13 itself trains a tiny model, in the place of the trainer here."""

from __future__ import annotations

import logging
from pathlib import Path

import peft
import pytest
import torch

from slmops.models.source import load_model
from slmops.olive.run import step_begun
from slmops.progress import Silent
from slmops.recipe.training import Tuning
from slmops.train.through_olive import train_through_olive
from slmops.train.trained import Trained
from tests.runtimes import needs_olive
from tests.train.test_trainer import examples

IDS = torch.tensor([[3, 14, 15, 9, 26, 53, 58], [97, 93, 23, 84, 62, 64, 33]])


@pytest.fixture(autouse=True)
def _olive() -> None:
    needs_olive()


class Stopped(Exception):
    pass


def tuned(tiny, work: Path, method: str, *, stop_at: str = "", said: list[str] | None = None) -> Trained:
    """Train by Olive; `stop_at` ends the process as a kill does, at the first line that holds it."""
    moved = Tuning.model_validate(
        {"method": method, "backend": "olive", "epochs": 20, "batch_tokens": 64, "precision": "fp32"}
        | {"learning_rate": 1e-2, "adapter": {"rank": 8, "alpha": 16}}
    )

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.getMessage()
            if said is not None:
                said.append(line)
            if stop_at and stop_at in line and step_begun(work):
                raise Stopped

    log = logging.Logger("olive")
    log.addHandler(Lines())
    work.mkdir(exist_ok=True)
    assert moved.to_make
    return train_through_olive(
        tiny.folder,
        examples(),
        moved,
        moved.to_make,
        validation=examples(seed=1),
        work=work,
        seed=1,
        progress=Silent(),
        log=log,
        title="train",
    )


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def check(trained: Trained, tiny) -> None:
    """It has learned, and is merged as what is trained here."""
    assert trained.history[-1]["text"] < 0.97 * trained.history[0]["text"]
    assert trained.figures["olive"].startswith("0.13.")
    assert trained.figures["merge_agreement"] > 0.97
    assert trained.figures["merge_kl"] < 1e-3
    assert trained.figures["adapter_bytes"] == 4 * trained.figures["trainable_parameters"]
    assert trained.model.state_dict().keys() == load_model(tiny.folder).state_dict().keys()


def test_qlora_is_merged_into_the_values_that_it_was_trained_beside(tiny, tmp_path):
    check(tuned(tiny, tmp_path / "work", "qlora"), tiny)


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(tiny, tmp_path):
    work = tmp_path / "work"
    with pytest.raises(Stopped):
        tuned(tiny, work, "dora", stop_at="'loss'")
    begun = step_begun(work)
    cut_off = work / "checkpoints" / "checkpoint-100000"
    cut_off.mkdir()
    (cut_off / "adapter_model.safetensors").touch()
    said: list[str] = []
    trained = tuned(tiny, work, "dora", said=said)
    assert any(f"checkpoint-{begun}" in line for line in said if "Resuming training at" in line)
    steps, seconds = ([entry[name] for entry in trained.history] for name in ("step", "seconds"))
    assert steps == list(range(5, int(trained.figures["steps"]) + 1, 5))
    assert seconds == sorted(seconds)
    assert not cut_off.exists()
    check(trained, tiny)
    trained.adapter.save(tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(load_model(tiny.folder), tmp_path / "adapter").eval()
    assert torch.allclose(logits(trained.model), logits(theirs), atol=2e-4)
