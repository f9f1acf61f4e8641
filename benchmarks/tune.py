"""Fine-tuning: what each method comes to and takes, LoRA's speed against rivals, and a search against defaults.

Methods train SmolLM2-135M-Instruct on a few rows of each intent of Banking77 (accuracy of the intent) and SNIPS (F1 of
the slots), each by a recipe of its own (`recipes/tune.yaml`) with the method's own learning rate and sizes, and answer
test rows; intervals are of 95 %, and every method is compared with LoRA row by row. Memory is what each run measured.
The search (`slmops tune`) is of Banking77: the best of its trials beside the recipe as it is written, on the test rows.
Speed is timed apart from all that, in rounds in which the sides take turns (`_tune_speed.py`), and wants a quiet
machine; the other parts do not.

`--only` does a part; what was done is kept below `--home`, so a run that was killed goes on, and `--afresh` times
speeds anew. The result is kept when all parts are there, and a table of the methods printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _tune_methods
import _tune_speed
from _contract import publish
from _tune_methods import METHODS, Methods
from _tune_rows import FIGURES, Few
from _tune_speed import Speed

ROOT = Path(__file__).parents[1]
PARTS = ("methods", "speed", "search")
GOALS = {"lora_ratio_vs_trl": 2.0, "lora_ratio_vs_llamafactory": 2.0}

METHODS_FULL = Methods(few={"banking77": Few(6, 2, 13, 10), "snips": Few(6, 2, 10)})
METHODS_QUICK = Methods(
    few={"banking77": Few(2, 1, 2, 3), "snips": Few(1, 1, 1)},
    told=("train.epochs=1",),
    trials=2,
)
SPEED_FULL = Speed(rows=54, rounds=3, bare_rounds=2, method_rounds=1)
SPEED_QUICK = Speed(rows=12, rounds=1, bare_rounds=1, method_rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder with banking77/ and snips/")
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder for the store and the rivals")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all timed sides")
    parser.add_argument("--only", choices=PARTS, help="one part; the others are taken as they were found before")
    parser.add_argument("--afresh", action="store_true", help="time speeds anew")
    parser.add_argument("--quick", action="store_true", help="few rows and one pass; the result is not kept")
    given = parser.parse_args()
    parts = [given.only] if given.only else list(PARTS)
    found = {part: figures_of(part, given) for part in parts}
    folder = given.home / "tune" / ("quick" if given.quick else "parts")
    folder.mkdir(parents=True, exist_ok=True)
    for part, one in found.items():
        (folder / f"{part}.json").write_text(json.dumps(one), encoding="utf-8")
    kept = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    values = {name: value for one in kept.values() for name, value in one[0].items()}
    spread = {name: ends for one in kept.values() for name, ends in one[1].items()}
    if set(kept) == set(PARTS):
        print(table(values, spread))
    publish("tune", values, goals=GOALS, spread=spread, keep=not given.quick and set(kept) == set(PARTS))


def figures_of(part: str, given: argparse.Namespace) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Measure a part, and its figures with their ends."""
    if part == "speed":
        if given.afresh:
            shutil.rmtree(given.home / "tune" / "speed", ignore_errors=True)
        speed = SPEED_QUICK if given.quick else SPEED_FULL
        return _tune_speed.figures(_tune_speed.measure(speed, given.data, given.home, given.threads))
    size = METHODS_QUICK if given.quick else METHODS_FULL
    if part == "search":
        return _tune_methods.search_figures(_tune_methods.search(size, given.data, given.home))
    return _tune_methods.figures(_tune_methods.measure(size, given.data, given.home))


def table(values: Mapping[str, float], spread: Mapping[str, Any]) -> str:
    """A row for each method: of either task the figure and what it is above LoRA's, then what training takes."""
    lines = [
        "| method | Banking77, accuracy | over LoRA, points | SNIPS, slot F1 | over LoRA, points "
        "| tokens/s | seconds | peak MB | adapter MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in ("base", *METHODS):
        cells = [f"`{method}`" if method != "base" else "as it comes"]
        for task, figure in FIGURES.items():
            name, over = f"{task}_{figure}_{method}", f"{task}_{method}_over_lora_points"
            cells += [_share(values[name], spread[name]), _points(values, spread, over)]
        rate = values.get(f"tokens_per_s_{method}")
        tokens, peak = (values.get(f"banking77_{method}_{name}") for name in ("train_tokens", "peak_mb"))
        adapter = values.get(f"banking77_{method}_adapter_mb")
        cells += [f"{rate:,.0f}", f"{tokens / rate:,.0f}", f"{peak:,.0f}"] if rate and tokens and peak else [""] * 3
        lines.append("| " + " | ".join([*cells, f"{adapter:.1f}" if adapter else ""]) + " |")
    return "\n".join(lines) + "\n"


def _share(value: float, ends: tuple[float, float]) -> str:
    return f"{value:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"


def _points(values: Mapping[str, float], spread: Mapping[str, tuple[float, float]], name: str) -> str:
    return f"{values[name]:+.0f} ({spread[name][0]:+.0f} to {spread[name][1]:+.0f})" if name in values else ""


if __name__ == "__main__":
    main()
