"""The demo's figures against its goals, from the evidence that a run of recipes/support.yaml leaves.

Stages that the home already holds are not run again; a fresh `--home` measures everything anew. `--readme` puts the
table that the run printed into README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _contract import publish, put_between

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "support.yaml"
ROLES = ("teacher", "baseline", "student", "shipped", "floor")
GOALS = {
    "time_saving_torch": 0.85,
    "weights_saving": 0.95,
    "exact_match_kept": 0.92,
    "field_f1_kept": 0.92,
    "over_baseline_points_low": 0.1,
    "over_floor_points_low": 0.1,
}
GATE_FAILED = 3
README = ROOT / "README.md"

# Too little for a good model, enough to see every figure. Teacher and shipped model share a format, and so an export.
QUICK = (
    "task.max_answer_tokens=48",
    "data.sample.train=60",
    "data.sample.pool=24",
    "data.sample.test=24",
    "teachers.0.fit.epochs=2",
    "teach.precision=int4",
    "teach.min_agreement=0",
    "train.epochs=3",
    "train.baseline_epochs=3",
    "evaluate.latency_requests=2",
    "evaluate.gates={}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder of the store and the history")
    parser.add_argument("--quick", action="store_true", help="less data and fewer epochs; the result is not kept")
    parser.add_argument("--readme", action="store_true", help="put the printed table into README.md")
    arguments = parser.parse_args()
    if arguments.quick and arguments.readme:
        parser.error("the table of a quick run is none to show")
    evidence, table = run(arguments.home, QUICK if arguments.quick else ())
    if arguments.readme:
        block = f"```text\n{table.rstrip()}\n```\n"
        README.write_text(put_between(README.read_text(encoding="utf-8"), "demo", block), encoding="utf-8")
    publish("demo", figures(evidence), goals=GOALS, spread=spread(evidence), keep=not arguments.quick)


def run(home: Path, overrides: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Run the recipe and return its evidence and the table it prints; a failed gate is a result like any other."""
    command = [sys.executable, "-m", "slmops.cli.main", "run", str(RECIPE), "--json", "--home", str(home)]
    command += [argument for override in overrides for argument in ("--set", override)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, GATE_FAILED):
        sys.exit(done.returncode)
    folders = {name: Path(step["path"]) for name, step in json.loads(done.stdout)["steps"].items()}
    evidence: dict[str, Any] = json.loads((folders["evaluate"] / "evidence.json").read_text(encoding="utf-8"))
    return evidence, (folders["report"] / "table.txt").read_text(encoding="utf-8")


def figures(evidence: Mapping[str, Any]) -> dict[str, float]:
    """The evidence as one number per name; what rests on too little evidence is left out."""
    found: dict[str, float | None] = {**evidence["savings"], **evidence["kept"]}
    for role in ROLES:
        quality = evidence["models"].get(role, {}).get("quality", {})
        found |= {f"{name}_{role}": quality.get(name) for name in ("exact_match", "field_f1")}
    for test in over_rivals(evidence):
        over = f"over_{test['theirs']}"
        found |= {f"{over}_points": test["points"], f"{over}_p": test["p_adjusted"]}
        found[f"{over}_points_low"] = test["interval"][0]  # clearly better means that the lower end is above zero
    found["n_test"] = evidence["n_test"]
    return {name: value for name, value in found.items() if value is not None}


def spread(evidence: Mapping[str, Any]) -> dict[str, list[float]]:
    """95 % intervals: of the kept shares, of each model's exact match, and of what it has over a rival."""
    found = {name: ends for name, ends in evidence["kept_interval"].items() if ends is not None}
    for role in ROLES:
        if "interval" in evidence["models"].get(role, {}):
            found[f"exact_match_{role}"] = evidence["models"][role]["interval"]["exact_match"]
    return found | {f"over_{test['theirs']}_points": test["interval"] for test in over_rivals(evidence)}


def over_rivals(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tests of the shipped model against what it must beat."""
    pairs = {("shipped", rival, "exact_match") for rival in ("baseline", "floor")}
    return [test for test in evidence["paired"] if (test["ours"], test["theirs"], test["figure"]) in pairs]


if __name__ == "__main__":
    main()
