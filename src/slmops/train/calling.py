"""Calling the user's own callbacks: what goes wrong in one is told with its path."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

from slmops.errors import BadInput
from slmops.recipe.own import CallbackSettings
from slmops.train.callbacks import EVENTS, MAY_STOP, Moment, Remembers, Reply
from slmops.train.own import find_class, make, takes

HINT = "docs/guides/distil.md shows a callback"


class Called:
    """The user's object."""

    def __init__(self, inner: Any, path: str, source: Path) -> None:
        """Bind the parts.

        Args:
            inner: an instance of the class.
            path: `package.module:Class`, as in the recipe.
            source: the file of the module; what it says may shape the student.
        """
        self.inner, self.path, self.source = inner, path, source
        self.name = path.partition(":")[2]
        self.events = [event for event in EVENTS if hasattr(inner, event)]

    def call(self, event: str, moment: Moment) -> Reply:
        """What it answers, with numbers that are `float`.

        Raises:
            BadInput: it fails, or its answer is none.
        """
        if event not in self.events:
            return Reply()
        reply = self._run(event, getattr(self.inner, event), moment)
        if reply is None:
            return Reply()
        if not isinstance(reply, Reply):
            raise self._wrong(event, f"gives {repr(reply)[:60]}", "return slmops.train.callbacks.Reply, or None")
        for name, value in reply.figures.items():
            if not isinstance(name, str) or not isinstance(value, Real) or not math.isfinite(value):
                raise self._wrong(event, f"gives {value!r} as {name!r}", "a figure is a name and a finite number")
        if reply.stop is not None and event not in MAY_STOP:
            raise self._wrong(event, "asks to stop", f"a training can end after {' and '.join(sorted(MAY_STOP))}")
        if reply.stop is not None and not (isinstance(reply.stop, str) and reply.stop.strip()):
            raise self._wrong(event, "asks to stop without a reason", "say why: Reply(stop='the budget is spent')")
        return Reply({name: float(value) for name, value in reply.figures.items()}, reply.stop)

    def state(self) -> Any:
        """What a new object goes on from; None of one that remembers nothing.

        Raises:
            BadInput: it fails, or gives what does not come back from JSON as it is.
        """
        if not isinstance(self.inner, Remembers):
            return None
        state = self._run("state", self.inner.state)
        try:
            whole = json.loads(json.dumps(state, allow_nan=False)) == state
        except (TypeError, ValueError):
            whole = False
        if not whole:
            raise self._wrong(
                "state",
                f"gives {repr(state)[:60]}, which is no JSON data",
                "give finite numbers, texts, true, false, null, lists, and dicts with texts as keys",
            )
        return state

    def restore(self, state: Any) -> None:
        """Go on from `state`.

        Raises:
            BadInput: it fails.
        """
        if isinstance(self.inner, Remembers):
            self._run("restore", self.inner.restore, state)

    def _run(self, method: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            raise self._wrong(method, f"fails: {type(error).__name__}: {error}", HINT) from error

    def _wrong(self, method: str, what: str, hint: str) -> BadInput:
        return BadInput(f"train.callbacks: {self.path}: {method} {what}", hint=hint)


class Callbacks:
    """All that look on, in the order of the recipe."""

    def __init__(self, called: Sequence[Called] = ()) -> None:
        self.called = list(called)

    def __bool__(self) -> bool:
        return bool(self.called)

    def call(self, event: str, moment: Moment) -> tuple[dict[str, float], str | None]:
        """The figures of all, each by `Class.name`, and who wants to stop and why: of several, the first.

        Raises:
            BadInput: see `Called.call`.
        """
        replies = {one.name: one.call(event, moment) for one in self.called}
        figures = {f"{name}.{key}": value for name, reply in replies.items() for key, value in reply.figures.items()}
        stops = [f"{name}: {reply.stop}" for name, reply in replies.items() if reply.stop is not None]
        return figures, stops[0] if stops else None

    def state(self) -> dict[str, Any]:
        """The state of each by its name, as JSON data.

        Raises:
            BadInput: see `Called.state`.
        """
        return {one.name: one.state() for one in self.called}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            BadInput: it was of other callbacks, or one fails.
        """
        names = [one.name for one in self.called]
        if names != list(states):
            before, now = (", ".join(those) or "none" for those in (states, names))
            raise BadInput(
                f"the checkpoint was written with the callbacks {before}, and the training now has {now}",
                hint="train with the same, or in another folder",
            )
        for one in self.called:
            one.restore(states[one.name])


def load_callbacks(asked: Sequence[CallbackSettings], *, evaluates: bool) -> list[Called]:
    """The callbacks that `train.callbacks` names; importing them runs their modules, and objects are made.

    Args:
        evaluates: whether the training evaluates the validation rows.

    Raises:
        BadInput: one cannot be imported, is no class of that module, refuses its arguments, has no method for an event,
            or would never be called.
    """
    return [_load(one, f"train.callbacks.{place}: {one.custom}", evaluates) for place, one in enumerate(asked)]


def _load(asked: CallbackSettings, place: str, evaluates: bool) -> Called:
    found, source = find_class(asked.custom, place)
    _check_methods(found, place)
    called = Called(make(found, asked.arguments, place), asked.custom, source)
    if called.events == ["on_evaluation"] and not evaluates:
        raise BadInput(
            f"{place}: has no method but on_evaluation, and nothing is evaluated while this trains",
            hint="set train.stop_early, or give it a method for another event",
        )
    return called


def _check_methods(found: type, place: str) -> None:
    events = ", ".join(EVENTS)
    for name in dir(found):
        if name.startswith("on_") and name not in EVENTS:
            near = get_close_matches(name, EVENTS, n=1)
            raise BadInput(
                f"{place}: there is no event `{name}`",
                hint=f"did you mean `{near[0]}`?" if near else f"known: {events}",
            )
    mine = [name for name in EVENTS if hasattr(found, name)]
    if not mine:
        raise BadInput(f"{place}: has no method for an event", hint=f"known: {events}; {HINT}")
    if hasattr(found, "state") != hasattr(found, "restore"):
        raise BadInput(
            f"{place}: has one of `state` and `restore`", hint="what is saved is restored: write both, or none"
        )
    given = {**dict.fromkeys(mine, ("moment",)), "state": (), "restore": ("state",)}
    for name, arguments in given.items():
        if hasattr(found, name) and not takes(getattr(found, name), *arguments):
            takes_what = f"one argument: the {arguments[0]}" if arguments else "no argument"
            raise BadInput(f"{place}: `{name}` must take {takes_what}", hint=HINT)
