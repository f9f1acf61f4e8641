"""Trials in a database: who takes which, what is repeated, and what a search that goes on begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import SlmopsError
from slmops.recipe.trials import Space, TuneSettings
from slmops.tune import study as module
from slmops.tune.study import AGAIN, MOST_CUTS, VALUES, Study, Trial, check_optuna, value_of

SPACE = {
    "train.learning_rate": Space(low=1e-5, high=1e-1, log=True),
    "train.adapter.rank": Space(low=2, high=16),
    "train.stop_early": Space(choices=[None, {"patience": 2}]),
}
WRITTEN = {"train.learning_rate": 1e-3, "train.adapter.rank": 64, "train.stop_early": None}


def opened(folder: Path, **settings: Any) -> Study:
    tune = TuneSettings(space=SPACE, **settings)
    study = Study(folder, "study", tune, maximise=True, seed=7)
    study.write_first(WRITTEN)
    return study


def begun(study: Study, most: int = 9) -> Trial:
    trial = study.next(most)
    assert trial
    return trial


def test_the_recipe_as_it_is_written_comes_first_whatever_it_has(tmp_path: Path) -> None:
    study = opened(tmp_path)
    with study.working():
        first, second = begun(study), begun(study)
    assert (first.number, first.written) == (0, True)
    # 64 lies outside of what is searched, so the sampler learns nothing of it.
    assert first.values == {"train.learning_rate": 1e-3, "train.stop_early": None}
    assert not second.written
    assert second.values.keys() == SPACE.keys()
    assert all(SPACE[name].holds(value) for name, value in second.values.items())


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_goes_on_draws_other_values(tmp_path: Path, sampler: str) -> None:
    drawn: list[Mapping[str, Any]] = []
    for _ in range(4):
        study = opened(tmp_path, sampler=sampler)
        with study.working():
            trial = begun(study)
            drawn.append(trial.values)
            study.done(trial, 0.5, 1.0)
    assert len({values["train.learning_rate"] for values in drawn}) == 4
    with study.working():
        assert study.next(4) is None
        assert study.next(5)


def test_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    drawn = []
    for name in "ab":
        study = opened(tmp_path / name)
        with study.working():
            for value in (0.1, 0.2, 0.3):
                trial = begun(study)
                study.done(trial, value, 1.0)
        drawn.append(begun(study).values)
    assert drawn[0] == drawn[1]


def test_workers_share_a_study_and_take_up_what_was_cut_off(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    with other.working():
        with one.working():
            mine, yours = begun(one), begun(other)
            assert (mine.number, yours.number) == (0, 1)
            # Both live, so two that are under way are all there are to be.
            assert other.next(2) is None
        again = begun(other, 2)
        assert again.written
        assert again.values == mine.values
        assert other.trials()[mine.number].state.name == "FAIL"
        assert other.trials()[again.number].user_attrs[AGAIN] == mine.number
        assert other.next(2) is None
        other.done(again, 0.5, 1.0)
        other.done(yours, 0.6, 1.0)
        assert other.next(2) is None


def test_what_was_drawn_is_tried_again_as_it_was(tmp_path: Path) -> None:
    study = opened(tmp_path)
    with study.working():
        study.done(begun(study), 0.1, 1.0)
        cut_off = begun(study)
    later = opened(tmp_path)
    with later.working():
        assert begun(later).values == cut_off.values


def test_a_trial_that_ends_every_process_has_failed(tmp_path: Path) -> None:
    for _ in range(MOST_CUTS):
        study = opened(tmp_path)
        with study.working():
            assert begun(study).written
    study = opened(tmp_path)
    with study.working():
        assert not begun(study).written


def test_a_kill_between_beginning_a_trial_and_noting_it(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.study.ask()
    later = opened(tmp_path)
    with later.working():
        again = begun(later)
    assert again.written
    assert later.trials()[again.number].user_attrs[VALUES] == again.values


def test_trials_that_do_worse_end_early_and_the_written_one_never(tmp_path: Path) -> None:
    study = opened(tmp_path, prune="median")
    with study.working():
        for loss in (9.0, 1.0, 1.1, 1.2, 1.3):
            trial = begun(study)
            assert not study.report(trial, 1, loss)
            assert not study.report(trial, 2, loss)
            study.done(trial, 0.5, 1.0)
        worse, better = begun(study), begun(study)
        assert study.report(worse, 1, 5.0)
        assert not study.report(better, 1, 0.9)


def test_a_number_has_three_digits_and_stays_within_its_bounds() -> None:
    space = Space(low=1.2345e-5, high=1.2349e-3, log=True)
    assert value_of(space, 3.45678e-4) == 3.46e-4
    assert value_of(space, 1.2345e-5) == 1.2345e-5
    assert value_of(space, 1.2349e-3) == 1.23e-3
    assert value_of(Space(choices=[None, [1]]), "[1]") == [1]


def test_a_database_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.db").write_text("no database" * 100)
    with pytest.raises(SlmopsError, match=r"study.db: .*not a database") as told:
        opened(tmp_path)
    assert told.value.hint


@pytest.mark.parametrize(("storage", "package"), [(None, "optuna"), ("postgresql://host/name", "psycopg")])
def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, storage: str | None, package: str) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else True)
    with pytest.raises(SlmopsError, match=package) as told:
        check_optuna(storage)
    assert told.value.hint == "pip install 'slmops[tune]'"
