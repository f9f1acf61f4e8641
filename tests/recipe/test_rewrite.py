"""Other values in a recipe's text: they are there afterwards, and everything else is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import SlmopsError
from slmops.recipe.document import parse_yaml
from slmops.recipe.load import Written
from slmops.recipe.rewrite import rewritten

TEXT = """\
# What it is for.
name: support   # a name
train:
  # slowly
  learning_rate: 2.0e-4  # peak
  stop_early: {patience: 2}
  objective:
    - kind: text   # words
      weight: 1
  adapter:
student: {model: ./model, carve: {layers: 2}}
data:
  split: {}
note: |
  two
  lines
"""


def changed(text: str, values: dict[str, object]) -> str:
    wanted = Written(parse_yaml(text, "text").value, Path()).with_values(values)
    return rewritten(text, values, wanted)


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"train.learning_rate": 1e-5}, ["  learning_rate: 1e-05  # peak"]),
        ({"train.stop_early.patience": 4}, ["  stop_early: {patience: 4}"]),
        ({"train.stop_early.every": 0.5}, ["  stop_early: {patience: 2, every: 0.5}"]),
        ({"train.adapter.rank": 8}, ["  adapter: {rank: 8}"]),
        ({"train.adapter": None}, ["  adapter: null"]),
        ({"train.objective.0.weight": 0.5}, ["    - kind: text   # words", "      weight: 0.5"]),
        ({"train.objective": [{"kind": "text"}]}, ['    [{"kind": "text"}]']),
        ({"student.carve.layers": 3}, ["student: {model: ./model, carve: {layers: 3}}"]),
        ({"student.heal.tokens": 9}, ["student: {model: ./model, carve: {layers: 2}, heal: {tokens: 9}}"]),
        ({"data.split.validation": 0.2}, ["  split: {validation: 0.2}"]),
        ({"tune.trials": 4}, ["  lines", "tune: {trials: 4}"]),
    ],
)
def test_a_value_is_written_where_it_belongs(values: dict[str, object], lines: list[str]) -> None:
    text = changed(TEXT, values)
    told = [line for line in text.splitlines() if line not in TEXT.splitlines()]
    assert set(told) <= set(lines)
    assert set(lines) <= set(text.splitlines())
    assert "# What it is for." in text
    assert "name: support   # a name" in text


def test_a_key_of_a_block_stands_behind_those_beside_it() -> None:
    text = changed("train:\n  epochs: 3  # few\n\n# then\nname: a\n", {"train.warmup": 0.2})
    assert text == "train:\n  epochs: 3  # few\n  warmup: 0.2\n\n# then\nname: a\n"


NAMES = st.sampled_from(["train.a", "train.b.c", "student.model", "train.stop_early.every", "new", "data.split.x.y"])
TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]))
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS


@given(st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=2), max_size=4))
def test_any_values_are_there_afterwards(values: dict[str, object]) -> None:
    wanted = Written(parse_yaml(TEXT, "text").value, Path()).with_values(values)
    assert parse_yaml(changed(TEXT, values), "text").value == wanted


def test_what_cannot_be_written_is_said() -> None:
    with pytest.raises(SlmopsError, match=r"a cannot be written") as told:
        rewritten("a: 1\n", {"a": 2}, {"a": 3})
    assert told.value.hint == "set them by hand: --set a=2"
