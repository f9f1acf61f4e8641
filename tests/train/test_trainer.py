"""The trainer on a real (tiny) model: it learns, it resumes to the bit, and it stops at nonsense."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypotheses
from hypothesis import strategies as st
from safetensors.torch import load_file

from slmops.errors import BadInput, SlmopsError
from slmops.models.source import load_model
from slmops.progress import Silent
from slmops.recipe.objective import ForwardKl, TextTerm
from slmops.recipe.training import Optimisation, StopEarly
from slmops.train import loop, precision, trainer
from slmops.train.checkpoint import STATE, TENSORS, last_checkpoint
from slmops.train.collate import collate
from slmops.train.examples import Example, certain
from slmops.train.loop import slope
from slmops.train.memory import needed
from slmops.train.objectives.observe import answer_logits
from slmops.train.objectives.text import cross_entropy
from slmops.train.optimiser import MasterAdamW
from slmops.train.trained import Trained
from slmops.train.trainer import train
from tests.train.launch import together

SETTINGS = Optimisation(epochs=6, learning_rate=5e-3, batch_tokens=64, precision="fp32", checkpoint_seconds=1e-6)


def examples(soft: bool = False, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    rows = [(tuple(rng.integers(3, 300, 8).tolist()), tuple(rng.integers(3, 300, 4).tolist())) for _ in range(24)]
    return [Example(prompt, answer, certain(answer, 3) if soft else None) for prompt, answer in rows]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_falls_and_the_model_comes_back_in_float32(tiny, tmp_path, precision):
    settings = SETTINGS.model_copy(update={"precision": precision, "checkpoint_seconds": 1e6})
    trained = train(tiny.folder, examples(), settings, work=tmp_path, seed=1)
    assert trained.history[-1]["text"] < 0.85 * trained.history[0]["text"]
    assert {value.dtype for value in trained.model.state_dict().values()} == {torch.float32}
    assert trained.tokens == 6 * 24 * 12
    assert trained.model.lm_head.weight is trained.model.get_input_embeddings().weight


def test_soft_targets_are_learned_too(tiny, tmp_path):
    objective = [ForwardKl(), TextTerm(weight=0.5)]
    trained = train(tiny.folder, examples(soft=True), SETTINGS, objective=objective, work=tmp_path, seed=1)
    assert trained.history[-1]["forward_kl"] < 0.85 * trained.history[0]["forward_kl"]
    assert trained.history[-1]["forward_kl"] == pytest.approx(trained.history[-1]["text"], abs=1e-3)


def changed(**settings: object) -> Optimisation:
    return SETTINGS.model_copy(update=settings)


class Noting(Silent):
    """Progress that keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_trainer import examples
from slmops.progress import Silent
from slmops.recipe.training import Optimisation
from slmops.train.trainer import train

class Deadly:
    def __init__(self): self.steps = 0
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def advance(self, amount=1, **figures):
        self.steps += 1
        if self.steps == int(sys.argv[4]): os.kill(os.getpid(), signal.SIGKILL)

class Watched(Silent):
    def task(self, title, total, unit): return Deadly()

settings = Optimisation.model_validate_json(sys.argv[5])
train(Path(sys.argv[2]), examples(), settings, work=Path(sys.argv[3]), seed=1, progress=Watched(),
      validation=examples(seed=1))
"""


def told(trained: Trained) -> dict[str, float | str]:
    """Its figures but for what the process took, which is not the same twice."""
    return {name: value for name, value in trained.figures.items() if name != "peak_memory_bytes"}


@pytest.mark.parametrize(
    ("settings", "checkpoint"),
    [
        (SETTINGS, "checkpoint-10"),
        (changed(accumulate=2), "checkpoint-10"),
        # An evaluation is a log point, and here every second step has one: the checkpoint is one step old.
        (changed(stop_early=StopEarly(patience=10, every=0.4)), "checkpoint-12"),
    ],
    ids=["plain", "accumulated", "validated"],
)
def test_killed_and_resumed_is_the_same_to_the_bit(tiny, tmp_path, settings, checkpoint):
    validation = examples(seed=1)
    unbroken = train(tiny.folder, examples(), settings, work=tmp_path / "unbroken", seed=1, validation=validation)
    work = tmp_path / "killed"
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, here, str(tiny.folder), str(work), "13", settings.model_dump_json()]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    saved = last_checkpoint(work)
    assert saved is not None
    assert saved.name == checkpoint
    # A checkpoint cut off by the kill must not be taken for a whole one.
    torn = work / "checkpoint-13.part"
    torn.mkdir()
    (torn / TENSORS).write_bytes(b"torn")
    (torn / STATE).write_text("{}")
    resumed = train(tiny.folder, examples(), settings, work=work, seed=1, validation=validation)
    for name, value in weights(unbroken.model).items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for name in ("step", "tokens", "text", "validation"):
        assert [h.get(name) for h in resumed.history] == [h.get(name) for h in unbroken.history]
    assert told(resumed) == told(unbroken)


class Watching(MasterAdamW):
    """The optimiser, which keeps the gradients of its first step."""

    seen: list[torch.Tensor]

    def step(self, closure=None):
        if not hasattr(self, "seen"):
            Watching.seen = self.seen = [weight.grad.clone() for weight in self._weights]
        return super().step(closure)


def first_gradients(folder: Path, rows: list[Example], settings: Optimisation) -> tuple[list[torch.Tensor], float]:
    with tempfile.TemporaryDirectory() as work, mock.patch.object(loop, "MasterAdamW", Watching):
        trained = train(folder, rows, settings, work=Path(work), seed=1)
    assert len(trained.history) == 1
    return Watching.seen, trained.history[0]["text"]


@given(
    answers=st.lists(st.integers(1, 12), min_size=2, max_size=10),
    batch_tokens=st.integers(32, 90),
    seed=st.integers(0, 99),
)
@hypotheses(max_examples=8)
def test_batches_that_are_accumulated_are_one_batch(tiny, answers, batch_tokens, seed):
    rng = np.random.default_rng(seed)
    rows = [Example(tuple(rng.integers(3, 300, 6).tolist()), tuple(rng.integers(3, 300, n).tolist())) for n in answers]
    once = changed(epochs=1, batch_tokens=100_000)
    whole, loss = first_gradients(tiny.folder, rows, once)
    parts = once.model_copy(update={"batch_tokens": batch_tokens, "accumulate": 1000})
    summed, same_loss = first_gradients(tiny.folder, rows, parts)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    for one, other in zip(whole, summed, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


def test_the_last_step_takes_the_batches_that_are_left(tiny, tmp_path):
    trained = train(tiny.folder, examples(), changed(epochs=1, accumulate=3), work=tmp_path, seed=1)
    # Five batches: a step of three and one of two.
    assert [h["step"] for h in trained.history] == [2]
    assert trained.tokens == 24 * 12


def test_activations_computed_again_give_the_same_weights(tiny, tmp_path):
    kept = train(tiny.folder, examples(), changed(epochs=1), work=tmp_path / "kept", seed=1)
    settings = changed(epochs=1, checkpoint_activations=True)
    again = train(tiny.folder, examples(), settings, work=tmp_path / "again", seed=1)
    for name, value in weights(kept.model).items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


def validation_loss(model: torch.nn.Module, rows: list[Example]) -> float:
    with torch.inference_mode():
        batch = collate(rows, pad=0)
        return float(cross_entropy(answer_logits(model, batch), batch["target"]))


def test_training_stops_when_the_validation_loss_no_longer_falls_and_its_best_weights_come_out(tiny, tmp_path):
    settings, validation, progress = (
        changed(epochs=40, stop_early=StopEarly(patience=2, every=0.5)),
        examples(seed=1),
        Noting(),
    )
    trained = train(tiny.folder, examples(), settings, work=tmp_path, seed=1, validation=validation, progress=progress)
    losses = [h["validation"] for h in trained.history if "validation" in h]
    assert trained.history[-1]["step"] < 40 * 5
    assert losses.index(min(losses)) == len(losses) - 3
    assert trained.figures["validation_loss"] == min(losses)
    assert validation_loss(trained.model, validation) == pytest.approx(min(losses), rel=1e-5)
    assert [note for note in progress.notes if note.startswith(f"stopped at step {trained.figures['steps']} of 200")]


def test_validation_runs_above_kept_states_too(tiny, tmp_path):
    settings = changed(epochs=2, freeze_layers=1, stop_early=StopEarly(patience=9, every=1.0))
    validation = examples(seed=1)
    trained = train(tiny.folder, examples(), settings, work=tmp_path, seed=1, validation=validation)
    lowest = min(h["validation"] for h in trained.history if "validation" in h)
    assert validation_loss(trained.model, validation) == pytest.approx(lowest, rel=1e-4)


def test_stopping_early_without_validation_examples_is_refused(tiny, tmp_path):
    with pytest.raises(BadInput, match="stop_early needs validation examples"):
        train(tiny.folder, examples(), changed(stop_early=StopEarly()), work=tmp_path, seed=1)


class Interrupting(Silent):
    """Stops the training in its seventh step, behind the checkpoint of the fifth."""

    class Task:
        steps = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def advance(self, _amount=1, **_figures):
            self.steps += 1
            if self.steps == 7:
                raise KeyboardInterrupt

    def task(self, *_):
        return self.Task()


def test_a_resumed_training_computes_in_what_its_checkpoint_was_computed_in(tiny, tmp_path, monkeypatch):
    def found(fp32: float, bf16: float) -> None:
        monkeypatch.setattr(precision, "measured_rates", lambda _hidden, _inner: (fp32, bf16))

    auto = changed(precision="auto")
    found(10.0, 13.0)
    with pytest.raises(KeyboardInterrupt):
        train(tiny.folder, examples(), auto, work=tmp_path, seed=1, progress=Interrupting())
    found(13.0, 10.0)
    progress = Noting()
    resumed = train(tiny.folder, examples(), auto, work=tmp_path, seed=1, progress=progress)
    assert resumed.figures.items() >= {"precision": "bf16", "fp32_gflops": 10.0, "bf16_gflops": 13.0}.items()
    assert progress.notes[0].startswith("training in bf16")
    assert train(tiny.folder, examples(), auto, work=tmp_path / "new", seed=1).figures["precision"] == "fp32"


def test_a_training_that_does_not_fit_is_refused_before_it_starts(tiny, tmp_path, monkeypatch):
    model, rows = load_model(tiny.folder, dtype=torch.float32), examples()
    memory = needed(model, [list(range(5))], rows, SETTINGS)
    for available, advice in (
        (memory.total - 1, "set accumulate: auto"),
        (1, "raise freeze_layers (now 0)"),
    ):
        monkeypatch.setattr("slmops.train.made.available_bytes", lambda available=available: available)
        with pytest.raises(BadInput, match=r"training needs about .* are available") as error:
            train(tiny.folder, rows, SETTINGS, work=tmp_path, seed=1)
        assert advice in (error.value.hint or "")
    assert not last_checkpoint(tmp_path)


def test_warnings_are_told_once_and_kept(tiny, tmp_path, monkeypatch):
    class Easily(trainer.Watcher):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.alarms.lowest = 1e-3  # as if the loss had been there: whatever comes now diverges

    monkeypatch.setattr(trainer, "Watcher", Easily)
    progress = Noting()
    trained = train(tiny.folder, examples(), SETTINGS, work=tmp_path, seed=1, progress=progress)
    assert len([note for note in progress.notes if note.startswith("warning: the loss diverges")]) == 1
    assert trained.figures["divergence_at_step"] == 10


TOGETHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from safetensors.torch import save_file
from test_trainer import examples
from slmops.recipe.training import Optimisation
from slmops.train.processes import Processes
from slmops.train.trainer import train

settings = Optimisation.model_validate_json(sys.argv[4])
trained = train(Path(sys.argv[2]), examples(), settings, work=Path(sys.argv[3]), seed=1, validation=examples(seed=1))
out = Path(sys.argv[3]) / f"rank-{Processes.joined().rank}.safetensors"
save_file({n: v.clone() for n, v in trained.model.state_dict().items()}, out)
print(trained.history[-1]["text"], trained.figures["best_step"])
"""


@pytest.mark.parametrize("accumulate", [2, 3])
def test_two_processes_train_what_one_trains(tiny, tmp_path, accumulate):
    # Five batches a pass, and three to a step: some steps leave one process without a batch.
    settings = changed(epochs=1, learning_rate=1e-3, accumulate=accumulate, stop_early=StopEarly(patience=9, every=0.5))
    work = tmp_path / "two"
    said = together(TOGETHER, tiny.folder, work, settings.model_dump_json())
    assert said[0] == said[1]
    one = train(tiny.folder, examples(), settings, work=tmp_path / "one", seed=1, validation=examples(seed=1))
    assert float(said[0].split()[0]) == pytest.approx(one.history[-1]["text"], rel=1e-5)
    for rank in range(2):
        made = load_file(work / f"rank-{rank}.safetensors")
        for name, value in weights(one.model).items():
            torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_loss_that_is_no_number_stops_the_training(tiny, tmp_path):
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(SlmopsError, match="no longer a number") as error:
        train(tiny.folder, examples(), wild, work=tmp_path, seed=1)
    assert "learning rate (now 1e+30)" in (error.value.hint or "")
    assert "at step 2 of 30" in str(error.value)
    assert "there is no checkpoint yet" in str(error.value)


def test_a_gradient_that_is_no_number_stops_before_it_spoils_the_weights(tiny, tmp_path, monkeypatch):
    saw, steps = trainer.Watcher.saw_gradient, []

    def spoilt(self, norm):
        steps.append(norm)
        saw(self, float("inf") if len(steps) == 8 else norm)

    monkeypatch.setattr(trainer.Watcher, "saw_gradient", spoilt)
    with pytest.raises(SlmopsError, match="the gradient is no longer a number at step 8 of 30") as error:
        train(tiny.folder, examples(), SETTINGS, work=tmp_path, seed=1)
    assert "the checkpoint of step 5 is kept" in str(error.value)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_only_the_newest_checkpoint_is_kept(tiny, tmp_path):
    train(tiny.folder, examples(), SETTINGS, work=tmp_path, seed=1)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
    assert len(list(tmp_path.glob(f"checkpoint-*/{STATE}"))) == 1


def test_the_learning_rate_rises_then_falls():
    steps = [slope(step, 100, 0.1) for step in range(100)]
    assert steps[0] == 0.1
    assert max(steps) == steps[9] == 1.0
    assert steps[10:] == sorted(steps[10:], reverse=True)
    assert steps[-1] == 0.05


def test_small_steps_reach_a_bfloat16_model_through_its_masters():
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimiser = MasterAdamW([weight], lr=1e-4, weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    # Each step is below what bfloat16 can tell from 1; a hundred of them are not.
    assert float(weight.detach()[0]) == pytest.approx(0.99, abs=0.004)
    copy = MasterAdamW([torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))], lr=1e-4, weight_decay=0.0)
    copy.restore(optimiser.tensors())
    assert torch.equal(copy.masters[0], optimiser.masters[0])
    assert copy.state[copy.masters[0]]["exp_avg"].dtype == torch.float32
