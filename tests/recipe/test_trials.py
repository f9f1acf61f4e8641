"""What a recipe may search: spaces are read, and what cannot be searched is refused where it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe.load import load_recipe, read_recipe, value_at
from slmops.recipe.trials import Space, TuneSettings

HEAD = """\
name: tuned
task: {kind: classification}
data: {train: rows.jsonl, test: rows.jsonl}
student: {model: ./model}
train: {method: lora, stop_early: {}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "model").mkdir()
    return tmp_path


def read(folder: Path, tune: str, *overrides: str) -> Any:
    (folder / "recipe.yaml").write_text(HEAD + f"tune:\n  {tune}\n")
    return load_recipe(folder / "recipe.yaml", overrides)


def test_ranges_of_numbers_and_of_integers_and_choices(folder: Path) -> None:
    space = """space:
    train.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}
    train.adapter.rank: {low: 4, high: 64, step: 4}
    train.freeze_layers: {choices: [0, 1]}
    train.stop_early: {choices: [null, {patience: 2}]}"""
    tune = read(folder, space).tune
    assert [one.whole for one in tune.space.values()] == [False, True, False, False]
    assert tune.space["train.stop_early"].written_choices == ["null", '{"patience": 2}']
    assert tune.space["train.adapter.rank"].holds(16)
    assert not tune.space["train.adapter.rank"].holds(16.5)
    assert not tune.space["train.learning_rate"].holds(True)
    assert (tune.trials, tune.sampler, tune.prune, tune.figure) == (20, "tpe", None, None)


@pytest.mark.parametrize(
    ("tune", "told"),
    [
        ("space: {}", "tune.space"),
        ("space: {train.learning_rate: {low: 1.0}}", "give `low` and `high`, or `choices`"),
        ("space: {train.learning_rate: {low: 2.0, high: 1.0}}", r"`low` \(2\) must lie below `high` \(1\)"),
        ("space: {train.learning_rate: {low: 0.0, high: 1.0, log: true}}", "`low` must be above 0"),
        ("space: {train.epochs: {low: 1, high: 4, step: 0.5}}", "`step` must be one"),
        ("space: {train.epochs: {low: 1, high: 4, step: 1, log: true}}", "exclude each other"),
        ("space: {train.epochs: {choices: [1, 2], low: 1}}", "`choices` and `low` exclude each other"),
        ("space: {train.epochs: {choices: [1, 1]}}", "has a value twice"),
        ("space: {teach.samples: {low: 1, high: 4}}", "`teach.samples` cannot be searched"),
        ("space: {train.lerning_rate: {low: 0.1, high: 0.2}}", r"recipe.yaml:7: .*did you mean train.learning_rate"),
        ("space: {train.learning_rate: {low: -0.1, high: 0.2}}", r"recipe.yaml:7: train.learning_rate is -0.1"),
        ("space: {train.warmup: {low: 0.5, high: 1.5}}", r"recipe.yaml:7: train.warmup is 1.5"),
        ("space: {train.adapter.rank: {choices: [4, many]}}", r"recipe.yaml:7: train.adapter.rank is \"many\""),
        ("{storage: mysql://host/name, space: {train.warmup: {choices: [0, 0.1]}}}", "postgresql://"),
        ("{storage: postgresql://me:secret@host/name, space: {train.warmup: {choices: [0, 0.1]}}}", "no credentials"),
        ("{prune: median, space: {train.stop_early.every: {choices: [0.5, 1]}}}", "when they are looked at"),
    ],
)
def test_what_cannot_be_searched_is_refused(folder: Path, tune: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        read(folder, tune)


def test_credentials_are_not_repeated(folder: Path) -> None:
    tune = "{storage: postgresql://me:secret@host/name, space: {train.warmup: {choices: [0, 0.1]}}}"
    with pytest.raises(BadInput) as refused:
        read(folder, tune)
    assert "secret" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("asked", ["prune: median", "figure: loss"])
def test_what_goes_by_the_loss_needs_it_measured(folder: Path, asked: str) -> None:
    space = "space: {train.warmup: {choices: [0, 0.1]}}"
    assert read(folder, f"{{{asked}, {space}}}").tune
    with pytest.raises(BadInput, match=r"which only `train.stop_early` has measured"):
        read(folder, f"{{{asked}, {space}}}", "train.stop_early=null")


def test_what_is_searched_is_no_part_of_what_travels(folder: Path) -> None:
    space = "space: {train.warmup: {choices: [0, 0.1]}}"
    assert "tune" not in read(folder, space).shareable()


def test_a_trial_is_the_recipe_with_other_values(folder: Path) -> None:
    read(folder, "space: {train.method: {choices: [lora, ia3]}}")
    written = read_recipe(folder / "recipe.yaml", ["train.epochs=2"])
    other = written.recipe({"train.method": "ia3"})
    # What the file leaves out follows the method, as it would if it stood there.
    assert (other.train.learning_rate, written.recipe().train.learning_rate) == (1e-2, 1e-3)
    assert (other.train.epochs, written.over) == (2, {"train.epochs": 2})
    assert value_at(other, "train.stop_early.patience") == 3
    assert value_at(other, "student.heal.tokens") is None


def test_settings_stay_as_they_are_in_json() -> None:
    tune = TuneSettings(space={"train.epochs": Space(low=1, high=4), "train.warmup": Space(low=0.0, high=0.5)})
    again = TuneSettings.model_validate(json.loads(tune.model_dump_json()))
    assert [one.whole for one in again.space.values()] == [True, False]
