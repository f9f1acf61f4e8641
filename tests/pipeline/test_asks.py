"""Stages that ask for others, which nobody knew of before they ran."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pipeline_toys import Toy, ToySettings, calls_in, run_chain

from slmops.pipeline.history import History
from slmops.pipeline.stage import Asks, Context, Node
from slmops.pipeline.store import Store
from slmops.pipeline.upkeep import collect


class AskingSettings(ToySettings):
    wanted: list[str]


class Longest(Asks):
    """Makes a toy of each wanted text behind its own input, then another behind the longest."""

    name = "longest"
    version = 1
    libraries = ("pydantic",)

    def run(
        self,
        inputs: Mapping[str, Path],  # noqa: ARG002 - it hands them on by name
        settings: AskingSettings,
        context: Context,
    ) -> Mapping[str, float | str]:
        def toy(text: str) -> ToySettings:
            return ToySettings(text=text, calls=settings.calls)

        nodes = [Node(f"try:{text}", Toy, toy(text), {"first": "given"}) for text in settings.wanted]
        found = {name: (path / "text.txt").read_text() for name, path in context.make(nodes).items()}
        best = max(found, key=lambda name: len(found[name]))
        last = Node("last", Toy, toy("!"), {"first": best, "second": "given"})
        path = context.make([last])["last"]
        (context.out / "text.txt").write_text((path / "text.txt").read_text())
        return {"tried": len(nodes)}


def graph(calls: Path, *wanted: str, stage: type = Longest) -> list[Node]:
    asking = AskingSettings(text="", calls=calls, wanted=list(wanted))
    return [
        Node("a", Toy, ToySettings(text="a", calls=calls)),
        Node("longest", stage, asking, inputs={"given": "a"}),
    ]


def test_a_stage_is_given_what_it_asks_for(home: Path, calls: Path) -> None:
    result = run_chain(home, graph(calls, "b", "ccc"))
    assert (result.artifacts["longest"].path / "text.txt").read_text() == "accca!"
    assert calls_in(calls) == ["a fresh", "b fresh", "ccc fresh", "! fresh"]
    assert list(result.artifacts) == ["a", "longest"]


def test_what_was_asked_for_before_is_not_made_again(home: Path, calls: Path) -> None:
    run_chain(home, graph(calls, "b", "ccc"))
    run_chain(home, graph(calls, "b", "ccc", "dd"))
    assert calls_in(calls)[4:] == ["dd fresh"]


def test_what_is_asked_for_is_recorded_and_kept(home: Path, calls: Path) -> None:
    run_chain(home, graph(calls, "b", "ccc"))
    (run,) = History(home).runs()
    assert [(step.node, step.state) for step in run.steps] == [
        (node, "done") for node in ("a", "longest", "try:b", "try:ccc", "last")
    ]
    assert {step.key for step in run.steps} == set(Store(home).whole())
    collect(home)
    assert {step.key for step in run.steps} == set(Store(home).whole())


class Silent:
    """Asks, and does not say so."""

    name, version, libraries = Longest.name, Longest.version, Longest.libraries
    run = Longest.run


def test_a_stage_that_does_not_say_so_is_given_nothing(home: Path, calls: Path) -> None:
    with pytest.raises(TypeError, match="derives from `Asks`"):
        run_chain(home, graph(calls, "b", stage=Silent))
