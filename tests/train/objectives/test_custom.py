"""Terms of a user's own, and what is said of those that cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from slmops.errors import BadInput
from slmops.train.objectives.base import View
from slmops.train.objectives.custom import load_custom

MODULE = '''
from collections import Counter

class Confident:
    """Pushes the most likely token above the second by a margin."""

    needs = frozenset()

    def __init__(self, margin: float = 1.0):
        if margin < 0:
            raise ValueError("margin must not be negative")
        self.margin = margin

    def loss(self, view):
        first, second = view.logits.topk(2, dim=-1).values.unbind(-1)
        return (self.margin - (first - second)).clamp(min=0).mean()

class PerToken(Confident):
    def loss(self, view):
        return view.logits.sum(-1)

class Words(Confident):
    def loss(self, view):
        return "much"

class Fails(Confident):
    def loss(self, view):
        raise KeyError("logit")

class NoLoss:
    needs = frozenset()

class NoNeeds:
    def loss(self, view):
        return view.logits.sum()

class OneNeed(NoNeeds):
    needs = "hidden"

class OddNeeds(NoNeeds):
    needs = {"hidden", "gold"}

class TwoViews:
    needs = frozenset()

    def loss(self, student, teacher):
        return 0

def function(view):
    return 0
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package beside no other: `house.losses`."""
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "losses.py").write_text(MODULE)
    (folder / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
        monkeypatch.delitem(sys.modules, name)
    return folder / "losses.py"


def view() -> View:
    return View(torch.tensor([[0.0, 0.5, 3.0], [1.0, 1.25, 0.0]]), torch.tensor([0, 1]))


def test_a_class_becomes_a_term_of_its_name(module: Path) -> None:
    term = load_custom("house.losses:Confident", {"margin": 0.75})
    assert (term.name, term.needs, term.source) == ("Confident", frozenset(), module)
    assert float(term.loss(view())) == pytest.approx((0 + 0.5) / 2)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("house.losses:Confidence", {}, "is no class"),
        ("house.losses:function", {}, "is no class"),
        ("house.losses:Counter", {}, "is defined in collections"),
        ("house.losses:NoLoss", {}, "has no method `loss`"),
        ("house.losses:NoNeeds", {}, "`needs` must be a set of names"),
        ("house.losses:OneNeed", {}, "`needs` must be a set of names"),
        ("house.losses:OddNeeds", {}, "`needs` names gold, which there is not"),
        ("house.losses:TwoViews", {}, "`loss` must take one argument: the view"),
        ("house.losses:Confident", {"marge": 1.0}, "got an unexpected keyword argument 'marge'"),
        ("house.losses:Confident", {"margin": -1.0}, "making one fails: ValueError: margin must not be negative"),
        ("house.nothing:Confident", {}, "there is no module house.nothing"),
        ("house.broken:Confident", {}, "importing the module fails: ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_a_term_is_named(path: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as error:
        load_custom(path, arguments)
    assert str(error.value) == f"train.objective: {path}: {message}"


def test_what_may_be_meant_is_told() -> None:
    with pytest.raises(BadInput) as error:
        load_custom("house.losses:Confident", {"marge": 1.0})
    assert error.value.hint == "its constructor takes: margin"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PerToken", r"house\.losses:PerToken gives a tensor of shape \[2\]"),
        ("Words", r"house\.losses:Words gives 'much'"),
        ("Fails", r"house\.losses:Fails fails: KeyError: 'logit'"),
    ],
)
def test_a_term_that_gives_no_loss_stops_the_training(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_custom(f"house.losses:{name}", {}).loss(view())
