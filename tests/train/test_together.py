"""A recipe that several processes train: the student of one, over a kill and by another number of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.plan.trial import trial_nodes
from slmops.pipeline.run import run_graph
from slmops.pipeline.worker import Made
from slmops.progress import Silent, Task
from slmops.recipe import load_recipe
from tests.conftest import Tiny
from tests.tuned_project import write_project

STEPS = ("tune=null", "train.learning_rate=1.0e-3", "train.batch_tokens=64", "train.accumulate=4", "train.epochs=2")
LONG = (*STEPS, "train.epochs=8", "train.checkpoint_seconds=0.01", "train.adapter.dropout=0.1")


class Totals(Silent):
    def __init__(self) -> None:
        self.totals: list[float] = []

    def task(self, title: str, total: float | None, unit: str) -> AbstractContextManager[Task]:
        if title.startswith("train") and total:
            self.totals.append(total)
        return super().task(title, total, unit)


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    return write_project(tmp_path, tiny.folder)


def student(recipe: Path, home: str, *overrides: str, progress: Silent | None = None) -> Made:
    read = load_recipe(recipe, overrides)
    nodes = trial_nodes(read)
    nodes = nodes[: [node.id for node in nodes].index("student") + 1]
    home_folder = recipe.parent / home
    return run_graph(
        nodes, name=read.name, resolved_recipe={}, seed=read.seed, home=home_folder, progress=progress
    ).artifacts["student"]


def same(one: Made, other: Made) -> None:
    assert one.key == other.key
    ours, theirs = (load_file(made.path / "model" / "model.safetensors") for made in (one, other))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(("method", "shared"), [("lora", "null"), ("full", "{}")])
def test_two_processes_train_the_student_of_one(recipe: Path, method: str, shared: str) -> None:
    settings = (*STEPS, f"train.method={method}")
    one = student(recipe, "one", *settings)
    two = student(recipe, "two", *settings, "train.processes=2", f"train.fsdp={shared}")
    same(one, two)
    assert two.metrics["processes"] == 2
    assert two.metrics["loss_text"] == pytest.approx(one.metrics["loss_text"], rel=1e-4)


def trainers() -> list[psutil.Process]:
    own = psutil.Process().children(recursive=True)
    return [one for one in own if "slmops.pipeline.together" in one.cmdline()]


def kill_one(checkpoints: Callable[[], bool]) -> None:
    while not checkpoints():
        time.sleep(0.005)
    os.kill(trainers()[1].pid, signal.SIGKILL)


def test_a_training_that_lost_a_process_goes_on_in_another_number_of_them(recipe: Path) -> None:
    works = recipe.parent / "home" / "work"
    killer = threading.Thread(target=kill_one, args=[lambda: any(works.glob("*/checkpoint-*[0-9]/state.json"))])
    killer.start()
    with pytest.raises(SlmopsError, match=r"process 2 of 2 that worked together was killed \(SIGKILL\)"):
        student(recipe, "home", *LONG, "train.processes=2", "train.fsdp={}")
    killer.join()
    assert not trainers()
    rest, whole = Totals(), Totals()
    done = student(recipe, "home", *LONG, "train.processes=3", progress=rest)
    same(student(recipe, "one", *LONG, progress=whole), done)
    assert rest.totals[0] < whole.totals[0]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.processes=2", "train.accumulate=1"], "share the batches of a step"),
        (["train.fsdp={}"], "several `processes`"),
        (["train.fsdp={}", "train.processes=2", "train.method=prompt"], "not with `prompt`"),
        (["train.fsdp={}", "train.processes=2", "train.freeze_layers=1"], "fsdp does not go with freeze_layers"),
    ],
)
def test_what_does_not_go_together_is_refused_before_work(recipe: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        student(recipe, "home", *STEPS, *overrides)
    assert not (recipe.parent / "home" / "store").exists()
