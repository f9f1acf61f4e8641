"""Every method on the same few rows of two tasks, as a user runs it: what the model comes to and what it takes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _sides import read_found, write_job
from _tune_rows import FIGURES, Few, write

from slmops.evaluate.significance import Drawn, difference, draw, interval
from slmops.recipe.tuning import Adapter
from slmops.tasks.figures import mean, micro_f1

RECIPE = Path(__file__).parent / "recipes" / "tune.yaml"
METHODS = ("full", "lora", "rslora", "dora", "qlora", "ia3", "bottleneck", "prompt")
BASE, COMPARED_WITH = "base", "lora"
STATISTICS = {"exact_match": mean, "field_f1": micro_f1}
SEED = 7
PRUNED = ("train.stop_early={every: 1.0, patience: 3}", "tune.prune=halving")

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Methods:
    """How much is measured: rows of each task, what the recipe is told besides, and trials of the search."""

    few: Mapping[str, Few]
    told: tuple[str, ...] = ()
    trials: int = 8


def measure(size: Methods, source: Path, home: Path) -> dict[str, dict[str, Found]]:
    """By task and method what its run found, `base` for the model as it comes; nothing is done twice."""
    found: dict[str, dict[str, Found]] = {}
    for task in size.few:
        rows = write(task, source, size.few[task], home / "tune" / "rows" / task, SEED)
        common = {"job": "run", "recipe": str(RECIPE), "figure": FIGURES[task], "home": str(home)}
        found[task] = {
            method: kept(home, f"{task}-{method}", common | _told(size, rows, method), key=asdict(size.few[task]))
            for method in (*METHODS, BASE)
        }
    return found


def _told(size: Methods, rows: list[str], method: str) -> dict[str, Any]:
    told = [*rows, *size.told, "tune=null"]
    if method == BASE:
        return {"role": BASE, "overrides": [*told, "train.baseline=true"]}
    return {"role": "student", "overrides": [*told, f"train.method={method}"]}


def search(size: Methods, source: Path, home: Path) -> dict[str, Any]:
    """A search on the rows of the first task; and how its best recipe and the one as written do on the test rows."""
    task, few = next(iter(size.few.items()))
    rows = [*write(task, source, few, home / "tune" / "rows" / task, SEED), *size.told, *PRUNED]
    recipe = home / "tune" / RECIPE.name
    recipe.write_text(RECIPE.read_text(encoding="utf-8"), encoding="utf-8")
    common = {"recipe": str(recipe), "home": str(home), "overrides": rows}
    done = kept(home, "search", common | {"job": "search", "trials": size.trials}, key=asdict(few))
    scored = {"job": "run", "figure": FIGURES[task], "role": "student"}
    best = common | scored | {"recipe": done["recipe"], "overrides": []}
    return {
        **done,
        "task": task,
        "of_written": kept(home, "search-written", common | scored, key=asdict(few)),
        "of_best": kept(home, "search-best", best, key={**asdict(few), "best": done["best"]["values"]}),
    }


def kept(home: Path, name: str, job: Mapping[str, Any], *, key: Mapping[str, Any]) -> dict[str, Any]:
    """What a job of ours finds in a process of its own; of a job that was done, what it found."""
    digest = hashlib.sha256(json.dumps([job, key], sort_keys=True).encode()).hexdigest()[:12]
    work, name = home / "tune" / "found", f"{name}-{digest}"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / f"{name}.found.json").exists():
        write_job(work, name, job)
        script = str(Path(__file__).with_name("_tune_ours.py"))
        subprocess.run([sys.executable, script, str(work), name], check=True, env=dict(os.environ))
    return read_found(work, name)


def figures(found: Mapping[str, Mapping[str, Found]]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Of every task and method the figure, what it is above LoRA's in points, peak memory and the adapter's size."""
    values: dict[str, float] = {}
    spread: dict[str, tuple[float, float]] = {}
    for task, by_method in found.items():
        drawn = drawn_of(task, by_method)
        values[f"{task}_test_rows"] = len(by_method[BASE]["columns"])
        for method, one in by_method.items():
            name = f"{task}_{FIGURES[task]}_{method}"
            values[name], spread[name] = drawn[method].value, tuple(interval(drawn[method]))
            if method != COMPARED_WITH:
                over = difference(drawn[method], drawn[COMPARED_WITH])
                name = f"{task}_{method}_over_{COMPARED_WITH}_points"
                values[name], spread[name] = over.value * 100, tuple(100 * end for end in over.interval)
            if method != BASE:
                values |= _took(task, method, one["training"])
    return values | _memory(found), spread


def drawn_of(task: str, by_name: Mapping[str, Found]) -> dict[str, Drawn]:
    """The task's figure of each, in the same resamples of the test rows."""
    statistic = STATISTICS[FIGURES[task]]
    tables = [(np.array(one["columns"], dtype=np.float64), statistic) for one in by_name.values()]
    return dict(zip(by_name, draw(tables, seed=0), strict=True))


def _took(task: str, method: str, training: Mapping[str, Any]) -> dict[str, float]:
    named = {"peak_mb": training["peak_memory_bytes"] / 1e6, "train_tokens": training["train_tokens"]}
    if method != "full":
        named["adapter_mb"] = training["adapter_bytes"] / 1e6
    return {f"{task}_{method}_{name}": value for name, value in named.items()}


def _memory(found: Mapping[str, Mapping[str, Found]]) -> dict[str, float]:
    """What QLoRA saves of full fine-tuning's peak, and how far plans of memory are from what was taken, median."""
    trainings = [one["training"] for by_method in found.values() for name, one in by_method.items() if name != BASE]
    errors = [abs(one["estimated_memory_bytes"] / one["peak_memory_bytes"] - 1) for one in trainings]
    savings = [
        1 - by["qlora"]["training"]["peak_memory_bytes"] / by["full"]["training"]["peak_memory_bytes"]
        for by in found.values()
    ]
    return {"qlora_memory_saving": min(savings), "plan_error": median(errors)}


def search_figures(found: Found) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The recipe as it is written and the best, on the test rows."""
    drawn = drawn_of(found["task"], {"written": found["of_written"], "best": found["of_best"]})
    over, name = difference(drawn["best"], drawn["written"]), f"search_{FIGURES[found['task']]}"
    states = [one["state"] for one in found["trials"]]
    values = {
        "search_trials": len(states),
        "search_ended_early": states.count("ended early"),
        "search_validation_rows": found["rows"],
        f"{name}_written": drawn["written"].value,
        f"{name}_best": drawn["best"].value,
        "search_gain_points": over.value * 100,
    }
    spread = {f"{name}_{which}": tuple(interval(one)) for which, one in drawn.items()}
    return values, spread | {"search_gain_points": tuple(100 * end for end in over.interval)}


def adapter_of(method: str) -> Adapter | None:
    """The adapter that a method trains with its own sizes."""
    from slmops.recipe.training import Tuning

    return Tuning.model_validate({"method": method}).to_make
