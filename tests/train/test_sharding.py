"""A model shared out over processes learns what one process learns, and what needs whole weights is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slmops.errors import BadInput
from slmops.recipe.objective import CustomTerm, ForwardKl, HiddenTerm, TextTerm
from slmops.recipe.training import Fsdp, Optimisation, Rounding, StopEarly
from slmops.train.checkpoint import last_checkpoint
from slmops.train.sharding import as_part_of, check_sharding, gathered, whole
from slmops.train.trainer import train
from tests.train.launch import together
from tests.train.test_trainer import SETTINGS, examples, weights

SHARED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from safetensors.torch import save_file
from test_trainer import examples
from slmops.recipe.training import Fsdp, Optimisation
from slmops.train import trainer
from slmops.train.processes import Processes

folder, work, settings, stop = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])
shard = trainer.shard


def measured(model, *others):
    whole = sum(weight.numel() for weight in model.parameters())
    shard(model, *others)
    print(sum(weight.to_local().numel() for weight in model.parameters()) / whole)


class Stopping(trainer.Watcher):
    def took(self, step):
        after = super().took(step)
        if step == stop:
            sys.stdout.flush()
            os._exit(0)
        return after


trainer.shard, trainer.Watcher = measured, Stopping
settings = Optimisation.model_validate_json(settings)
trained = trainer.train(
    folder, examples(), settings, work=work, seed=1, validation=examples(seed=1), fsdp=Fsdp()
)
out = work / f"rank-{Processes.joined().rank}.safetensors"
save_file({name: value.clone() for name, value in trained.model.state_dict().items()}, out)
print(trained.history[-1]["text"], trained.figures.get("best_step"))
"""
PLAIN: dict[str, Any] = {"labels": False, "adapter": None}
STEPS = SETTINGS.model_copy(
    update={
        "epochs": 3,
        "accumulate": 2,
        "learning_rate": 1e-3,
        "stop_early": StopEarly(patience=9, every=0.5),
        "checkpoint_activations": True,
    }
)


@pytest.fixture(scope="module")
def shared(tiny, tmp_path_factory) -> tuple[Path, list[str]]:
    """A training of two processes that each hold a part, and what they said."""
    work = tmp_path_factory.mktemp("shared")
    return work, together(SHARED, tiny.folder, work, STEPS.model_dump_json(), 0)


def test_two_processes_that_share_a_model_train_what_one_trains(tiny, tmp_path, shared):
    work, said = shared
    for share, end in (text.splitlines() for text in said):
        assert float(share) == pytest.approx(0.5, abs=0.05), "each holds half of the weights"
        assert end == said[0].splitlines()[1]
    one = train(tiny.folder, examples(), STEPS, work=tmp_path, seed=1, validation=examples(seed=1))
    assert float(said[0].split()[1]) == pytest.approx(one.history[-1]["text"], rel=1e-4)
    for rank in range(2):
        made = load_file(work / f"rank-{rank}.safetensors")
        for name, value in weights(one.model).items():
            torch.testing.assert_close(made[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_bfloat16_weights_move_under_masters_that_are_shared_out(tiny, tmp_path):
    settings = STEPS.model_copy(update={"precision": "bf16", "stop_early": None, "checkpoint_activations": False})
    said = together(SHARED, tiny.folder, tmp_path / "two", settings.model_dump_json(), 0)
    one = train(tiny.folder, examples(), settings, work=tmp_path / "one", seed=1)
    assert float(said[0].split()[1]) == pytest.approx(one.history[-1]["text"], rel=0.02)


def test_it_goes_on_from_a_checkpoint_of_all_parts(tiny, tmp_path, shared):
    settings = STEPS.model_dump_json()
    together(SHARED, tiny.folder, tmp_path, settings, 7)
    saved = last_checkpoint(tmp_path)
    assert saved is not None
    assert not list(tmp_path.glob("rank-*"))
    together(SHARED, tiny.folder, tmp_path, settings, 0)
    for name, value in load_file(shared[0] / "rank-0.safetensors").items():
        assert torch.equal(load_file(tmp_path / "rank-1.safetensors")[name], value), name


def test_one_process_has_nobody_to_share_with(tiny, tmp_path):
    with pytest.raises(BadInput, match="over several processes, and this is one") as error:
        train(tiny.folder, examples(), SETTINGS, work=tmp_path, seed=1, fsdp=Fsdp())
    assert "`processes`" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("changed", "objective", "rounding", "normalise", "refused"),
    [
        ({"freeze_layers": 1}, [TextTerm()], None, False, "freeze_layers"),
        ({}, [TextTerm()], Rounding(), False, "round_to_int4"),
        ({}, [TextTerm()], None, True, "normalise"),
        ({}, [ForwardKl(logits="online")], None, False, "terms that run the teacher"),
        ({}, [TextTerm(), HiddenTerm()], None, False, "terms that run the teacher"),
        ({}, [CustomTerm(kind="custom", custom="a:B")], None, False, "terms of one's own"),
    ],
)
def test_what_needs_whole_weights_is_refused(changed, objective, rounding, normalise, refused):
    settings = SETTINGS.model_copy(update=changed)
    with pytest.raises(BadInput, match=f"fsdp does not go with {refused}"):
        check_sharding(2, settings, objective, rounding=rounding, normalise=normalise, **PLAIN)


def test_what_goes_by_stored_probabilities_and_words_is_taken():
    settings = Optimisation(accumulate=4, checkpoint_activations=True, stop_early=StopEarly())
    check_sharding(2, settings, [ForwardKl(), TextTerm()], rounding=None, normalise=False, **PLAIN)


def test_what_each_process_would_decide_for_itself_is_refused():
    settings = Optimisation(checkpoint_activations="auto")
    with pytest.raises(BadInput, match="all must do the same"):
        check_sharding(2, settings, [TextTerm()], rounding=None, normalise=False, **PLAIN)


def test_a_tensor_that_is_not_shared_out_is_whole_already():
    tensor = torch.arange(3.0)
    assert whole(tensor) is tensor
    assert as_part_of(tensor, torch.zeros(3)) is tensor
    state = {"state": {0: {"step": tensor}}, "masters": [tensor], "lr": 0.1}
    kept = gathered(state, keep=True)
    assert torch.equal(kept["state"][0]["step"], tensor)
    assert torch.equal(kept["masters"][0], tensor)
    assert gathered(state, keep=False) == {"state": {0: {"step": None}}, "masters": [None], "lr": 0.1}
