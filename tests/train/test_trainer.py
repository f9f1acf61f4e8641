"""The trainer on a real (tiny) model: it learns, it resumes to the bit, and it stops at nonsense."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.errors import SlmopsError
from slmops.recipe.objective import ForwardKl, TextTerm
from slmops.recipe.training import Optimisation
from slmops.train.examples import Example, certain
from slmops.train.optimiser import MasterAdamW
from slmops.train.trainer import WHOLE, last_checkpoint, slope, train

SETTINGS = Optimisation(epochs=6, learning_rate=5e-3, batch_tokens=64, precision="fp32", checkpoint_seconds=1e-6)


def examples(soft: bool = False) -> list[Example]:
    rng = np.random.default_rng(0)
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


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_trainer import SETTINGS, examples
from slmops.progress import Silent
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

train(Path(sys.argv[2]), examples(), SETTINGS, work=Path(sys.argv[3]), seed=1, progress=Watched())
"""


def test_killed_and_resumed_is_the_same_to_the_bit(tiny, tmp_path):
    unbroken = train(tiny.folder, examples(), SETTINGS, work=tmp_path / "unbroken", seed=1)
    work = tmp_path / "killed"
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, here, str(tiny.folder), str(work), "13"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    saved = last_checkpoint(work)
    assert saved is not None
    assert saved.name == "checkpoint-10"
    # A checkpoint cut off by the kill must not be taken for a whole one.
    torn = work / "checkpoint-12"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"torn")
    resumed = train(tiny.folder, examples(), SETTINGS, work=work, seed=1)
    for name, value in weights(unbroken.model).items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert [h["step"] for h in resumed.history] == [h["step"] for h in unbroken.history]
    assert [h["text"] for h in resumed.history] == [h["text"] for h in unbroken.history]


def test_a_loss_that_is_no_number_stops_the_training(tiny, tmp_path):
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(SlmopsError, match="no longer a number") as error:
        train(tiny.folder, examples(), wild, work=tmp_path, seed=1)
    assert "learning rate" in (error.value.hint or "")


def test_only_the_newest_checkpoint_is_kept(tiny, tmp_path):
    train(tiny.folder, examples(), SETTINGS, work=tmp_path, seed=1)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
    assert len(list(tmp_path.glob(f"checkpoint-*/{WHOLE}"))) == 1


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
    copy.load_state_dict(optimiser.state_dict())
    assert torch.equal(copy.masters[0], optimiser.masters[0])
    assert copy.state[copy.masters[0]]["exp_avg"].dtype == torch.float32
