"""Callbacks of a user's own in a real training: what they hear, what they say, and what becomes of a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

from slmops.errors import BadInput
from slmops.recipe.own import CallbackSettings
from slmops.recipe.training import StopEarly, TrainSettings
from slmops.report.lines import curves, resources
from slmops.train.calling import load_callbacks
from slmops.train.checkpoint import last_checkpoint
from slmops.train.trainer import train
from tests.train.test_trainer import Noting, changed, examples, told

MODULE = """
import os, signal
from slmops.train.callbacks import Reply

class Diary:
    def __init__(self, stop_at=None, kill_at=None, fail_at=None):
        self.stop_at, self.kill_at, self.fail_at, self.heard = stop_at, kill_at, fail_at, []
    def note(self, event, moment):
        self.heard.append([event, moment.step])
    def on_start(self, moment): self.note("start", moment)
    def on_step(self, moment):
        self.note("step", moment)
        if moment.step == self.kill_at and not os.environ.get("SPARED"):
            os.kill(os.getpid(), signal.SIGKILL)
        if moment.step == self.fail_at:
            raise ValueError("no disk")
        return Reply({"heard": len(self.heard), "loss": moment.losses["text"]},
                     stop="enough" if moment.step == self.stop_at else None)
    def on_evaluation(self, moment): self.note("evaluation", moment)
    def on_checkpoint(self, moment): self.note("checkpoint", moment)
    def on_end(self, moment):
        self.note("end", moment)
        return Reply({"at_end": moment.step})
    def state(self): return self.heard
    def restore(self, state): self.heard = state

class Meddler:
    def on_step(self, moment):
        moment.losses["text"] = 0.0

class Freezer:
    def on_step(self, moment):
        moment.step = 0

class Odd:
    def __init__(self, event, reply): self.event, self.reply = event, reply
    def answer(self, event):
        if event == self.event:
            if self.reply == "inf":
                return Reply({"loss": float("inf")})
            return Reply(**self.reply) if isinstance(self.reply, dict) else self.reply
    def on_start(self, moment): return self.answer("on_start")
    def on_step(self, moment): return self.answer("on_step")
    def on_end(self, moment): return self.answer("on_end")

class Keeps:
    def __init__(self, what): self.what = {"tuple": (1, 2), "nan": float("nan"), "keys": {1: 2}, "object": self}[what]
    def on_step(self, moment): pass
    def state(self): return self.what
    def restore(self, state): pass

class Misspelt:
    def on_steps(self, moment): pass

class Deaf:
    def step(self, moment): pass

class Half:
    def on_step(self, moment): pass
    def state(self): return 1

class TwoMoments:
    def on_step(self, moment, other): pass

class Evaluations:
    def on_evaluation(self, moment): pass
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "watching.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "watching", raising=False)
    return tmp_path / "watching.py"


def asked(name: str, **arguments: object) -> list[CallbackSettings]:
    return [CallbackSettings(custom=f"watching:{name}", arguments=arguments)]


def trained(tiny, work: Path, callbacks: list[CallbackSettings], progress=None, **settings: object):
    return train(
        tiny.folder,
        examples(),
        changed(**{"epochs": 3, **settings}),
        work=work,
        seed=1,
        validation=examples(seed=1),
        callbacks=callbacks,
        progress=progress,
    )


def heard(work: Path) -> list[list[object]]:
    saved = last_checkpoint(work)
    assert saved is not None
    return json.loads((saved / "state.json").read_text())["callbacks"]["Diary"]


def test_it_hears_of_everything_in_order_and_its_numbers_are_in_the_history(tiny, tmp_path) -> None:
    made = trained(tiny, tmp_path / "work", asked("Diary"), stop_early=StopEarly(patience=9, every=1.0))
    assert heard(tmp_path / "work") == [
        ["start", 0],
        *[["step", i] for i in range(1, 6)],
        ["evaluation", 5],
        ["checkpoint", 5],
        *[["step", i] for i in range(6, 11)],
        ["evaluation", 10],
        ["checkpoint", 10],
    ]
    last = made.history[-1]
    assert (last["Diary.heard"], last["Diary.at_end"]) == (20.0, 15.0)
    assert last["Diary.loss"] > 0
    assert [name for name, _ in resources({"student": made.history}) if "." in name] == ["Diary.heard", "Diary.loss"]
    assert "Diary" not in str(curves({"student": made.history}))


def test_it_may_end_the_training_and_its_reason_is_kept(tiny, tmp_path) -> None:
    progress = Noting()
    made = trained(tiny, tmp_path / "work", asked("Diary", stop_at=7), progress)
    assert made.figures.items() >= {"stopped_at_step": 7, "stopped_by": "Diary: enough"}.items()
    assert made.history[-1]["step"] == 7
    assert "stopped at step 7 of 15 by Diary: enough" in progress.notes


def test_weights_of_a_training_that_it_ends_are_evaluated_where_the_best_come_out(tiny, tmp_path) -> None:
    early = StopEarly(patience=9, every=1.0)
    made = trained(tiny, tmp_path / "work", asked("Diary", stop_at=3), stop_early=early)
    assert made.figures["best_step"] == 3
    assert made.history[-1]["validation"] == made.figures["validation_loss"]


KILLED = """
import sys
from pathlib import Path
from types import SimpleNamespace
sys.path[:0] = sys.argv[1:3]
from tests.train.test_callbacks import asked, trained
trained(SimpleNamespace(folder=Path(sys.argv[3])), Path(sys.argv[4]), asked("Diary", kill_at=13))
"""


def test_killed_and_resumed_it_goes_on_with_what_it_had(tiny, tmp_path, monkeypatch) -> None:
    root, work = str(Path(__file__).parents[2]), tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, root, str(tmp_path), str(tiny.folder), str(work)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    before = heard(work)
    assert before[-1] == ["checkpoint", 10]
    monkeypatch.setenv("SPARED", "1")
    resumed = trained(tiny, work, asked("Diary", kill_at=13))
    unbroken = trained(tiny, tmp_path / "unbroken", asked("Diary", kill_at=13))
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    # It is told that training starts once more, and of everything else as if nothing had been.
    assert resumed.history[-1]["Diary.heard"] == unbroken.history[-1]["Diary.heard"] + 1
    assert [entry["Diary.loss"] for entry in resumed.history] == [entry["Diary.loss"] for entry in unbroken.history]
    assert told(resumed) == told(unbroken)


def test_one_that_fails_ends_the_training_with_its_name_and_the_checkpoint_kept(tiny, tmp_path) -> None:
    work = tmp_path / "work"
    with pytest.raises(BadInput, match="watching:Diary: on_step fails: ValueError: no disk, at step 8") as error:
        trained(tiny, work, asked("Diary", fail_at=8))
    assert str(error.value).endswith("the checkpoint of step 5 is kept")
    made = trained(tiny, work, asked("Diary"))
    assert made.history[-1]["step"] == 15


def test_the_state_of_others_is_not_taken(tiny, tmp_path) -> None:
    work = tmp_path / "work"
    with pytest.raises(BadInput, match="no disk"):
        trained(tiny, work, asked("Diary", fail_at=8))
    with pytest.raises(BadInput, match="written with the callbacks Diary, and the training now has none"):
        trained(tiny, work, [])


def test_what_it_is_shown_is_not_its_to_change(tiny, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"watching:Meddler: on_step fails: TypeError"):
        trained(tiny, tmp_path / "one", asked("Meddler"))
    with pytest.raises(BadInput, match=FrozenInstanceError.__name__):
        trained(tiny, tmp_path / "two", asked("Freezer"))


@pytest.mark.parametrize(
    ("event", "reply", "message"),
    [
        ("on_step", "stop", "on_step gives 'stop'"),
        ("on_step", "inf", "on_step gives inf as 'loss'"),
        ("on_step", {"figures": {"loss": "low"}}, "on_step gives 'low' as 'loss'"),
        ("on_step", {"stop": " "}, "on_step asks to stop without a reason"),
        ("on_start", {"stop": "now"}, "on_start asks to stop"),
        ("on_end", {"stop": "now"}, "on_end asks to stop"),
    ],
)
def test_a_reply_that_is_none_is_refused(tiny, tmp_path, event, reply, message) -> None:
    with pytest.raises(BadInput, match=message):
        trained(tiny, tmp_path / "work", asked("Odd", event=event, reply=reply), epochs=1)


@pytest.mark.parametrize("what", ["tuple", "nan", "keys", "object"])
def test_a_state_that_json_would_change_is_refused_and_the_last_checkpoint_kept(what: str) -> None:
    (called,) = load_callbacks(asked("Keeps", what=what), evaluates=False)
    with pytest.raises(BadInput, match=r"state gives .* which is no JSON data"):
        called.state()


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("Misspelt", "there is no event `on_steps`", "did you mean `on_step`?"),
        ("Deaf", "has no method for an event", "known: on_start, "),
        ("Half", "has one of `state` and `restore`", "write both, or none"),
        ("TwoMoments", "`on_step` must take one argument: the moment", "distil.md"),
        ("Evaluations", "has no method but on_evaluation", "set train.stop_early"),
        ("Nobody", "is no class", "classes there: Diary, "),
    ],
)
def test_what_cannot_be_a_callback_is_named_before_any_work(name: str, message: str, hint: str) -> None:
    with pytest.raises(BadInput) as error:
        load_callbacks(asked(name), evaluates=False)
    assert str(error.value).startswith(f"train.callbacks.0: watching:{name}: {message}")
    assert hint in str(error.value.hint)


def test_a_recipe_names_one_as_it_names_terms() -> None:
    (one,) = TrainSettings.model_validate({"callbacks": [{"custom": "watching:Diary", "stop_at": 7}]}).callbacks
    assert one == asked("Diary", stop_at=7)[0]
    for callbacks, words in (
        ([{"custom": "watching:Diary"}, {"custom": "other:Diary"}], "two classes are called Diary"),
        ([{"custom": "watching"}], "callbacks.0"),
        ([{"stop_at": 7}], "callbacks.0.custom"),
    ):
        with pytest.raises(ValueError, match=words):
            TrainSettings.model_validate({"callbacks": callbacks})
