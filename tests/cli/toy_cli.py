"""The real command line over a graph that takes milliseconds. What happens follows the recipe's name."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

import slmops.bundle
import slmops.pipeline.plan
from slmops.cli.main import main
from slmops.pipeline.stage import Context, Node
from slmops.recipe import Recipe


class Settings(BaseModel):
    what: str = ""
    epochs: float = 0


class Evaluate:
    name = "evaluate"
    version = 1
    libraries = ()

    def run(self, _inputs: Mapping[str, Path], settings: Settings, context: Context) -> Mapping[str, float | str]:
        if settings.what == "bug":
            raise ZeroDivisionError("a bug in a stage")
        if settings.what == "slow":
            time.sleep(30)
        state: Literal["pass", "fail"] = "fail" if settings.what == "gate" else "pass"
        gates = [{"state": state, "message": "exact_match_kept: 0.900 is 0.020 below 0.92"}]
        if settings.what == "unclear":
            gates.append({"state": "not enough evidence", "message": "same_text: 12 rows; 30 are needed"})
            gates.append({"state": "fail", "message": "field_f1: 0.100 is 0.800 below 0.9"})
        failed = sum(gate["state"] != "pass" for gate in gates)
        (context.out / "gates.json").write_text(json.dumps(gates))
        return {"exact_match": 0.5 + settings.epochs / 100, "gates_failed": failed}


class Parity:
    name = "parity"
    version = 1
    libraries = ()

    def run(self, inputs: Mapping[str, Path], _settings: Settings, context: Context) -> Mapping[str, float | str]:
        gates = json.loads((inputs["evaluate"] / "gates.json").read_text())
        failed = sum(gate["state"] != "pass" for gate in gates)
        (context.out / "junit.xml").write_text(f"<testsuites failures='{failed}'/>")
        (context.out / "summary.md").write_text(f"## {failed} gates do not pass\n")
        return {}


class Report:
    name = "report"
    version = 1
    libraries = ()

    def run(self, _inputs: Mapping[str, Path], _settings: Settings, context: Context) -> Mapping[str, float | str]:
        (context.out / "table.txt").write_text("model    exact match\nshipped  0.5\n")
        return {}


class Bundle(Report):
    name = "bundle"


def nodes_for(recipe: Recipe) -> list[Node]:
    return [
        Node("evaluate", Evaluate, Settings(what=recipe.name, epochs=recipe.train.epochs)),
        Node("bundle", Bundle, Settings(), inputs={"evaluate": "evaluate"}),
        Node("parity", Parity, Settings(), inputs={"evaluate": "evaluate"}),
        Node("report", Report, Settings(), inputs={"evaluate": "evaluate"}),
    ]


def place_bundle(_bundle: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    slmops.pipeline.plan.nodes_for = nodes_for
    slmops.bundle.place_bundle = place_bundle
    main()
