"""What a search came to, as plain data for people and programs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slmops.recipe.load import value_at
from slmops.recipe.models import Recipe
from slmops.tune.study import SECONDS, VALUES, WHY, WRITTEN, Study, counts

if TYPE_CHECKING:
    import optuna

_STATES = {"COMPLETE": "measured", "PRUNED": "ended early", "FAIL": "failed", "RUNNING": "under way"}
_FEWEST = 4
"""Trials with a value below which nothing is said of what matters."""


def outcome(study: Study, recipe: Recipe, *, figure: str, rows: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """`tune.json`: the `figure`, whether more of it is better (`maximise`), `rows` it was measured on; `trials` with
    `number`, `state`, `value`, `values` by dotted name, `seconds` and `why`; `written` and `best`, two of them; and
    `importance` by name, shares of what the values' differences explain (PED-ANOVA, Watanabe et al. 2023), nothing
    where the trials are too few or all alike.

    Args:
        recipe: as it is written.
        about: further entries.
    """
    every = study.trials()
    shown = [_told(one, recipe) for one in every if one.state.name in _STATES and counts(every, one)]
    done = [one for one in shown if one["state"] == "measured"]
    sign = -1 if study.maximise else 1
    return {
        "figure": figure,
        "maximise": study.maximise,
        "rows": rows,
        "trials": shown,
        "written": next((one for one in done if one["written"]), None),
        "best": min(done, key=lambda one: (sign * one["value"], one["number"]), default=None),
        "importance": _importance(study, done),
        **about,
    }


def _told(one: optuna.trial.FrozenTrial, recipe: Recipe) -> dict[str, Any]:
    noted, written = one.user_attrs, bool(one.user_attrs.get(WRITTEN))
    assert recipe.tune  # noqa: S101 - there is a search
    values = {name: value_at(recipe, name) for name in recipe.tune.space} if written else noted.get(VALUES, {})
    state = _STATES[one.state.name]
    why = noted.get(WHY, "cut off again and again" if state == "failed" else None)
    value = one.value if state == "measured" else None
    return {
        "number": one.number,
        "written": written,
        "state": state,
        "value": value,
        "values": values,
        "seconds": noted.get(SECONDS),
        "why": why,
    }


def _importance(study: Study, done: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    if len(done) < _FEWEST or len({one["value"] for one in done}) == 1:
        return {}
    import optuna

    moved = [name for name in study.tune.space if len({str(one["values"].get(name)) for one in done}) > 1]
    drawn = {name for one in study.trials() if one.state.name == "COMPLETE" for name in one.params}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the trials are few: the page says so
        return optuna.importance.get_param_importances(study.study, params=[name for name in moved if name in drawn])
