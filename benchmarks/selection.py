"""What rows chosen by a student's doubts are worth: 20 intents of Banking77, accuracy against rows bought.

Both sides are `teach.select` with an endpoint that knows all labels, as a perfect teacher would: one takes the rows of
which the student is least sure (`by: uncertainty`), the other any (`by: random`). All else is the same: labelled rows,
pool, first round, and what a student is. That is made for two cores: the first layers of SmolLM2-135M, and for each
intent a code of one token in the place of its name. Every round's student answers the same test rows, by which nothing
was chosen. Points are over the rows of all seeds together, with a paired bootstrap.

The rows are read as `_headline/banking77.py` says.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from _contract import publish
from _headline.banking77 import read
from _headline.corpus import LABEL, Corpus, by_intent
from _headline.running import needed
from _oracle import Oracle

from slmops import Recipe
from slmops.console import screen
from slmops.data.read import read_jsonl, write_jsonl
from slmops.engines import load_engine
from slmops.evaluate.significance import paired_bootstrap
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.history import History
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import run_graph
from slmops.pipeline.store import Store
from slmops.progress import Progress
from slmops.tasks import Row, task_of
from slmops.tasks.figures import Array
from slmops.teach.label import label_pool

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "benchmarks" / "recipes" / "selection.yaml"
SEEDS, SIDES = (11, 12, 13, 14, 15), ("random", "uncertainty")
INTENTS = 20
"""The first ones by name, of which many are about cards and so are easily mistaken for each other."""

LABELLED, VALIDATION, POOL = 1, 3, 40
"""Rows of each intent: that are learned from in any case, that are kept for choices, and of the pool at most."""

CODES = [first + vowel for first in "bcdfghklmnprstvw" for vowel in "aeiou" if first + vowel != "vu"]
"""Each is one token of SmolLM2's."""

GOALS = {"selected_over_random_points_low": 0.1}
"""Better for sure means that the lower end is above nothing."""

QUICK = (
    "teach.select={first: 12, rows: 12, rounds: 1, patience: 99, candidates: 40}",
    "student.carve.layers=1",
    "train.epochs=1",
)

Curve = Mapping[int, Array]
"""By rows bought, right (1) or wrong (0) for each test row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "banking77")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the rows and of training alike")
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder of the store and the history")
    parser.add_argument("--port", type=int, default=8377, help="of the teacher; a run goes on under the same alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--quick", action="store_true", help="a few rows and one layer; the result is not kept")
    given = parser.parse_args()
    corpus, seeds, told = some(read(given.data)), given.seeds, given.set
    if given.quick:
        seeds, told, corpus = seeds[:1], [*QUICK, *told], corpus.smaller()
    found: dict[str, list[Curve]] = {side: [] for side in SIDES}
    for seed in seeds:
        for side in SIDES:
            found[side].append(curve(corpus, side, seed, told, given.home, given.port))
    values, spread = figures(found)
    publish(
        "selection",
        values | {"seeds": len(seeds)},
        goals=GOALS,
        spread=spread,
        keep=not (given.quick or given.set or len(seeds) < len(SEEDS)),
    )


def some(corpus: Corpus) -> Corpus:
    """The rows of a few intents."""
    kept = set(sorted(by_intent(corpus.train))[:INTENTS])
    train, test = ([row for row in rows if row["output"][LABEL] in kept] for rows in (corpus.train, corpus.test))
    return replace(corpus, train=train, test=test)


def curve(corpus: Corpus, side: str, seed: int, overrides: Sequence[str], home: Path, port: int) -> Curve:
    """Buy and train as one side does from one seed, and judge the student of every round on the test rows."""
    print(f"{side}, seed {seed} …", file=sys.stderr, flush=True)
    code = dict(zip(sorted(by_intent(corpus.train)), CODES, strict=False))
    labelled, pool = parted(corpus, code, seed)
    test = [coded(row, code) for row in corpus.test]
    with TemporaryDirectory() as name, Oracle({row["input"]: row["output"] for row in pool}, port) as oracle:
        unlabelled = [{"id": row["id"], "input": row["input"]} for row in pool]
        files = {part: Path(name, f"{part}.jsonl") for part in ("train", "pool", "test")}
        for part, rows in (("train", labelled), ("pool", unlabelled), ("test", test)):
            write_jsonl(files[part], rows)
        told = [f"data.{part}={json.dumps(str(path))}" for part, path in files.items()]
        told += [
            f"task.labels={json.dumps(sorted(code.values()))}",
            f"teachers.0.base_url={oracle.url}",
            f"seed={seed}",
        ]
        recipe = Recipe.load(RECIPE, [*told, f"teach.select.by={side}", *overrides])
        result = run_graph(
            needed(nodes_for(recipe), {"teach"}),
            name=f"selection-{side}-{seed}",
            resolved_recipe=recipe.resolved(),
            seed=recipe.seed,
            home=home,
            progress=(progress := screen()),
        )
    made = {node: step.path for node, step in result.artifacts.items()}
    points = json.loads((made["teach"] / "curve.json").read_text(encoding="utf-8"))["points"]
    keys = asked_for(home, result.artifacts["teach"].key)
    students = {point["asked"]: Store(home).open(keys[f"student:{point['round']}"]) for point in points}
    return {asked: right(found.path, made["data"], progress) for asked, found in students.items() if found}


def asked_for(home: Path, teach: str) -> Mapping[str, str]:
    """The keys of the steps that the stage `teach`, by its key, asked for in the run that made it."""
    runs = ({step.node: step.key for step in run.steps} for run in History(home).runs())
    return next(keys for keys in runs if keys.get("teach") == teach and "student:0" in keys)


def parted(corpus: Corpus, code: Mapping[str, str], seed: int) -> tuple[list[Row], list[Row]]:
    """Labelled rows, those for validation among them, and the pool with the labels that the teacher gives."""
    labelled: list[Row] = []
    pool: list[Row] = []
    for intent, rows in by_intent(corpus.train).items():
        drawn = random.Random(f"{seed}:{intent}").sample(rows, len(rows))  # noqa: S311 - no secret
        told = [coded(row, code) for row in drawn[: LABELLED + VALIDATION + POOL]]
        labelled += told[: LABELLED + VALIDATION]
        pool += told[LABELLED + VALIDATION :]
    return labelled, pool


def coded(row: Row, code: Mapping[str, str]) -> Row:
    return {**row, "output": code[row["output"][LABEL]]}


def right(student: Path, data: Path, progress: Progress) -> Array:
    """Whether the model in an artifact answers each test row as it is labelled."""
    task, rows, model = task_of(data), read_jsonl(data / "test.jsonl"), student / "model"
    engine, tokenizer = load_engine("transformers", model, gpu=True), Tokenizer.load(model)
    with TemporaryDirectory() as work:
        answers = label_pool(
            engine, tokenizer, task, rows, batch=64, top_logits=0, work=Path(work), progress=progress, title="test"
        )
    pairs = zip(rows, answers, strict=True)
    return np.array([float(task.parse(answer.text) == row["output"]) for row, answer in pairs])


def figures(found: Mapping[str, Sequence[Curve]]) -> tuple[dict[str, float], dict[str, Sequence[float]]]:
    """Accuracy of both sides after every round but the first, which they share, and the points between them."""
    rounds = list(found["random"][0])
    values: dict[str, float] = {"rows": float(sum(len(one[rounds[0]]) for one in found["random"]))}
    spread: dict[str, Sequence[float]] = {}

    def told(name: str, each: Sequence[Any]) -> None:
        means = [float(one.mean()) for one in each]
        values[name], spread[name] = float(np.concatenate(each).mean()), (min(means), max(means))

    told(f"accuracy_first_{rounds[0]}", [one[rounds[0]] for one in found["random"]])
    for asked in rounds[1:]:
        for side, name in zip(SIDES, ("random", "selected"), strict=True):
            told(f"accuracy_{name}_{asked}", [one[asked] for one in found[side]])
        values |= _points(found, [asked], f"selected_over_random_points_{asked}", spread)
    values |= _points(found, rounds[1:], "selected_over_random_points", spread)
    return values, spread


def _points(
    found: Mapping[str, Sequence[Curve]], rounds: Sequence[int], name: str, spread: dict[str, Sequence[float]]
) -> dict[str, float]:
    """Points between the sides, in the mean of these rounds; a test row is one, whatever the rounds."""
    theirs, ours = (
        np.concatenate([np.mean([one[asked] for asked in rounds], axis=0) for one in found[side]]) for side in SIDES
    )
    tested = paired_bootstrap(ours, theirs, seed=0)
    low, high = (end * 100 for end in tested.interval)
    spread[name] = (low, high)
    return {name: tested.value * 100, f"{name}_low": low, f"{name}_p": tested.p_value}


if __name__ == "__main__":
    main()
