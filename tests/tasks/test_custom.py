"""Figures of a user's own, and what is said of those that cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slmops.errors import BadInput
from slmops.tasks import ParseFailure
from slmops.tasks.custom import load_metrics

MODULE = '''
from os.path import join

def shorter(reference, answer, text):
    """Is the answer no longer than it must be?"""
    return answer is not None and len(text) <= len(reference)

def fails(reference, answer, text):
    raise ValueError(f"cannot read {text}")

def says_nothing(reference, answer, text):
    return None

def endless(reference, answer, text):
    return float("inf")

def of_two(reference, answer):
    return 1.0

async def later(reference, answer, text):
    return 1.0

NUMBER = 5
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package beside no other: `house.metrics`."""
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "metrics.py").write_text(MODULE)
    (folder / "broken.py").write_text("1 / 0")
    (folder / "needs.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
        monkeypatch.delitem(sys.modules, name)
    return folder / "metrics.py"


def test_a_function_becomes_a_figure_of_its_name(module: Path) -> None:
    (metric,) = load_metrics(["house.metrics:shorter"], ["exact_match"])
    assert (metric.name, metric.source) == ("shorter", module)
    judged = [
        {metric.column: metric.judge("t1", "abc", answer, text)}
        for answer, text in (("ab", "ab"), ("abcd", "abcd"), (ParseFailure("no"), "a"))
    ]
    assert metric.figure().value(judged) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("house.metrics:longer", "is no function"),
        ("house.metrics:NUMBER", "is no function"),
        ("house.metrics:later", "is no function"),
        ("house.metrics:join", "is defined in posixpath"),
        ("house.metrics:of_two", "must take three arguments: reference, answer and text"),
        ("house.nothing:shorter", "there is no module house.nothing"),
        ("house.needs:shorter", "there is no module not_there_at_all"),
        ("house.broken:shorter", "importing the module fails: ZeroDivisionError: division by zero"),
        ("os:getpid", "is no function"),
    ],
)
def test_what_cannot_be_a_metric_is_named_with_its_place(path: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        load_metrics(["house.metrics:shorter", path])
    assert str(error.value) == f"evaluate.metrics.1: {path}: {message}"


def test_a_name_is_given_once() -> None:
    for paths, taken in ((["house.metrics:shorter"] * 2, []), (["house.metrics:shorter"], ["shorter"])):
        with pytest.raises(BadInput, match="there is another figure called shorter"):
            load_metrics(paths, taken)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "house.metrics:fails fails on row 't7': ValueError: cannot read hm"),
        ("says_nothing", "house.metrics:says_nothing gives 'None' for row 't7'"),
        ("endless", "house.metrics:endless gives 'inf' for row 't7'"),
    ],
)
def test_the_row_on_which_it_fails_is_named(name: str, message: str) -> None:
    (metric,) = load_metrics([f"house.metrics:{name}"])
    with pytest.raises(BadInput) as error:
        metric.judge("t7", "ref", "answer", "hm")
    assert str(error.value) == f"evaluate.metrics: {message}"
    assert error.value.hint
