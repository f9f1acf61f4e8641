"""What every callback keeps to: moments in their order, replies that are some, and a kill that it does not notice.

A class of one's own is held to this by a line in `SUBJECTS`.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from slmops.recipe.own import CallbackSettings
from slmops.train.callbacks import EVENTS, Moment, Remembers
from slmops.train.calling import Called, load_callbacks
from tests.test_docs import DISTIL, blocks

COUNTING = """
from slmops.train.callbacks import Reply

class Counting:
    def __init__(self): self.heard = {}
    def hear(self, event):
        self.heard[event] = self.heard.get(event, 0) + 1
        return Reply(figures={event: self.heard[event]})
    def on_start(self, moment): return self.hear("start")
    def on_step(self, moment): return self.hear("step")
    def on_evaluation(self, moment): return self.hear("evaluation")
    def on_checkpoint(self, moment): return self.hear("checkpoint")
    def on_end(self, moment): return self.hear("end")
    def state(self): return self.heard
    def restore(self, state): self.heard = dict(state)

class Silent:
    def on_step(self, moment): pass
"""

SUBJECTS = [
    CallbackSettings(custom="contract_house:Counting"),
    CallbackSettings(custom="contract_house:Silent"),
    CallbackSettings(custom="guide_house:Target", arguments={"loss": 0.5, "evaluations": 2}),
]


@pytest.fixture(params=SUBJECTS, ids=lambda one: one.custom.partition(":")[2])
def settings(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CallbackSettings:
    (tmp_path / "contract_house.py").write_text(COUNTING)
    (guide,) = [text for text in blocks(DISTIL, "python") if text.startswith('"""house/watch.py"""')]
    (tmp_path / "guide_house.py").write_text(guide)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("contract_house", "guide_house"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return request.param


def made(settings: CallbackSettings) -> Called:
    return load_callbacks([settings], evaluates=True)[0]


def moments() -> list[tuple[str, Moment]]:
    """A training of 12 steps, which is evaluated every third and kept every sixth."""
    told = [("on_start", 0)]
    for step in range(1, 13):
        told.append(("on_step", step))
        told += [("on_evaluation", step)] * (step % 3 == 0) + [("on_checkpoint", step)] * (step % 6 == 0)
    return [(event, moment(step)) for event, step in [*told, ("on_end", 12)]]


def moment(step: int) -> Moment:
    losses = {"text": 3.0 / step} if step else {}
    validation = 3.0 / (step - step % 3) if step >= 3 else None
    return Moment(step, 12, 100 * step, MappingProxyType(losses), 0.5 if step else None, validation)


def replies(called: Called, told: list[tuple[str, Moment]]) -> list[Any]:
    return [called.call(event, at) for event, at in told]


def test_it_hears_of_events_that_there_are(settings: CallbackSettings) -> None:
    assert made(settings).events
    assert set(made(settings).events) <= set(EVENTS)


def test_the_same_training_gets_the_same_replies(settings: CallbackSettings) -> None:
    assert replies(made(settings), moments()) == replies(made(settings), moments())


def test_a_new_object_goes_on_where_the_killed_one_was(settings: CallbackSettings) -> None:
    whole, told = made(settings), moments()
    for killed_at in range(1, len(told)):
        first, second = made(settings), made(settings)
        replies(first, told[:killed_at])
        second.restore(json.loads(json.dumps(first.state())))
        assert replies(second, told[killed_at:]) == replies(first, told[killed_at:])
    assert replies(whole, told) == [*replies(again := made(settings), told[:5]), *replies(again, told[5:])]


def test_its_state_is_asked_for_without_changing_it(settings: CallbackSettings) -> None:
    called, asked = made(settings), made(settings)
    for event, at in moments():
        asked.state()
        assert asked.call(event, at) == called.call(event, at)


def test_what_remembers_says_both_halves(settings: CallbackSettings) -> None:
    inner = made(settings).inner
    assert isinstance(inner, Remembers) or not {"state", "restore"} & {name for name, _ in inspect.getmembers(inner)}
