"""The weighted sum: every term on its own, and terms of unlike size on one scale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slmops.train.objectives.base import View
from slmops.train.objectives.mixture import MEMORY, Mixture


class Scaled:
    """A term whose value is told beforehand."""

    needs: frozenset[str] = frozenset()

    def __init__(self, name: str, *values: float) -> None:
        self.name, self.values = name, iter(values)

    def loss(self, view: View) -> torch.Tensor:
        return view.logits.mean() * next(self.values)


def view() -> View:
    return View(torch.ones(2, 3, requires_grad=True), torch.zeros(2, dtype=torch.long))


def test_the_sum_is_weighted_and_every_term_is_told_as_it_is():
    terms = Mixture([Scaled("a", 2.0), Scaled("b", 30.0)], [1.0, 0.3], normalise=False)(view())
    assert {name: (factor, value.item()) for name, (factor, value) in terms.items()} == {
        "a": (1.0, 2.0),
        "b": (0.3, 30.0),
    }


def test_normalised_terms_are_divided_by_the_running_mean_of_their_size():
    mixture = Mixture([Scaled("a", 2.0, 4.0), Scaled("b", -3000.0, 0.0)], [1.0, 0.5], normalise=True)
    first = mixture(view())
    assert [(factor * value).item() for factor, value in first.values()] == pytest.approx([1.0, -0.5])
    second = mixture(view())
    mean = MEMORY * 2 + (1 - MEMORY) * 4
    assert float(second["a"][0]) == pytest.approx(1 / mean)
    assert second["a"][1].item() == 4.0
    # What was measured first is not changed by what is measured later.
    assert float(first["a"][0]) == pytest.approx(0.5)


class Judging(Scaled):
    needs = frozenset({"online"})


def test_of_the_students_own_answers_only_what_a_teacher_judges_is_measured():
    terms = [Judging("a", 2.0, 4.0, 6.0), Scaled("b", 5.0), Scaled("c", 8.0)]
    mixture = Mixture(terms, [1.0, 0.3, 0.0], normalise=True)
    ((name, (factor, value)),) = mixture(view(), own=True).items()
    assert (name, float(factor), value.item()) == ("a", pytest.approx(1 / 2), 2.0)
    assert mixture.magnitudes.tolist() == pytest.approx([2.0, 0.0, 0.0])
    given = mixture(view())
    assert [value.item() for _, value in given.values()] == [4.0, 5.0, 8.0]
    assert float(given["b"][0]) == pytest.approx(0.3 / 5)
    before = mixture.magnitudes.clone()
    mixture(view(), own=True)
    assert torch.equal(mixture.magnitudes[1:], before[1:])
    assert mixture.magnitudes[0] > before[0]


def test_magnitudes_are_constants_of_the_gradient():
    shown = view()
    ((factor, value),) = Mixture([Scaled("a", 8.0)], [1.0], normalise=True)(shown).values()
    (factor * value).backward()
    assert shown.logits.grad is not None
    torch.testing.assert_close(shown.logits.grad.sum(), torch.tensor(1.0))


def test_the_state_is_all_that_a_resumed_mixture_needs():
    values = [0.5, 2.0, 8.0, 3.0, 1.0]
    whole = Mixture([Scaled("a", *values)], [1.0], normalise=True)
    for _ in range(3):
        whole(view())
    later = Mixture([Scaled("a", *values[3:])], [1.0], normalise=True)
    later.load_state_dict(whole.state_dict())
    for _ in range(2):
        assert torch.equal(whole(view())["a"][0], later(view())["a"][0])


def test_without_normalising_there_is_no_state():
    assert Mixture([Scaled("a", 1.0)], [1.0], normalise=False).state_dict() == {}


TWO = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from test_mixture import Mixture, Scaled, view
rank = int(sys.argv[3])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
mixture = Mixture([Scaled("a", 2.0 + 4 * rank, 8.0)], [1.0], normalise=True)
mixture(view()), mixture(view())
print(mixture.magnitudes.tolist())
torch.distributed.destroy_process_group()
"""


def test_processes_that_train_together_measure_together(tmp_path: Path):
    command = [sys.executable, "-c", TWO, str(Path(__file__).parent), str(tmp_path / "meeting")]
    both = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    told = [process.communicate(timeout=200)[0] for process in both]
    assert told[0] == told[1] == f"{torch.tensor([MEMORY * 4.0 + (1 - MEMORY) * 8.0]).tolist()}\n"
