"""Labelling texts against llama.cpp, which writes the labels: requests a second, and how many are right.

The task is Banking77 (77 labels), the model the first six layers of SmolLM2-135M, trained on its rows as `compress.py`
does. Eight streams ask; each has its next text labelled as soon as the last one is. Ours weighs the labels of that
model, or runs one with a head for labels: as many layers, trained on the same rows. llama.cpp writes the label, which
is as far as a user gets with a server of models; it is driven as `serve.py` drives it, and so is ours, from the queue
inwards.

`classify_ratio_vs_llamacpp` is requests a second of our fastest side over the fastest of llama.cpp: the median over
rounds, in which all sides take turns, each in a process of its own. `classify_right_*` is the share of the requests,
which are the first test rows, that get the right label.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import compress
from _compress_subjects import Amount, Tuned, banking77_subject, tuned
from _contract import publish
from _serve_figures import lines
from _serve_sides import HEADS, OURS, THEIRS, Side
from _serve_traffic import label_loads
from _sides import model_folder
from serve import Place, Run, make, room, runners

from slmops.tasks import Classification

GOALS = {"classify_ratio_vs_llamacpp": 5.0}
WEIGHING = tuple(side for side in OURS if side.labels)
WRITING = tuple(side for side in THEIRS if side.labels)
ROUNDS = 3
EACH = 12
"""Texts of a stream."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given = os.environ.get("SLMOPS_BANKING77")
    parser.add_argument(
        "--banking77",
        type=Path,
        metavar="DIR",
        default=given and Path(given),
        required=given is None,
        help="its files. Or $SLMOPS_BANKING77.",
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all sides")
    parser.add_argument("--home", type=Path, default=compress.ROOT / ".slmops", help="folder for models and rivals")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slmops-labels-") as work:
        place = Place(arguments.home, Path(work), arguments.threads)
        found = measure(place, arguments.banking77, compress.FULL.banking77)
    values, spread = figures(found)
    print(f"{table(found)}\n")
    publish("labels", values, goals=GOALS, spread=spread)


def measure(place: Place, banking77: Path, amount: Amount) -> dict[str, Any]:
    """Requests a second of each round, and the share that is right, by side."""
    base = model_folder(place.home, compress.MODEL)
    train = partial(compress.own, place.work, threads=place.threads)
    subject = banking77_subject(banking77, amount)
    models = [tuned(subject, base, place.home, train, marks=marks) for marks in (False, True)]
    return of_labels(place, *models, runners((*WEIGHING, *HEADS, *WRITING), place))


def of_labels(place: Place, model: Tuned, marking: Tuned, runs: Mapping[Side, Run]) -> dict[str, Any]:
    """The same, of models that are trained.

    Args:
        model: writes labels; `marking`: has a head for them.
    """
    made = make(place, model, {side: run for side, run in runs.items() if side not in HEADS})
    made |= make(place, marking, {side: run for side, run in runs.items() if side in HEADS})
    asked = label_loads(model, compress.STREAMS, EACH)
    common = {"job": "serve", "ends": sorted(model.tokenizer.end_ids), "labels": True, "stagger_s": 0.0}
    common |= {"loads": {"labels": asked}, "streams": compress.STREAMS, "room": room({"labels": asked})}
    common |= {"warm_up": [asked[0][:2]]}
    found: dict[str, Any] = {side.name: {"requests_per_s": [], "right": 0.0} for side in made}
    for number in range(ROUNDS):
        for side in made:
            job = {**common, "model": made[side]["model"]}
            load = runs[side](f"label-{side.name}-{number}", job)["loads"]["labels"]
            answers = [answer for stream in load["answers"] for answer in stream]
            one = found[side.name]
            one["requests_per_s"].append(len(answers) / load["seconds"])
            one["right"] = share_right(model, answers, chosen=side.rival is None)
    return found


def share_right(model: Tuned, answers: Sequence[Sequence[int]], *, chosen: bool) -> float:
    """Of answers to the first test rows, which are numbers of labels where they were chosen, and else their tokens."""
    task, right = model.subject.task, 0
    assert isinstance(task, Classification)  # noqa: S101
    for row, answer in zip(model.subject.test, answers, strict=False):
        label = task.labels[answer[0]] if chosen else task.parse(model.tokenizer.decode(answer))
        right += label == row["output"]
    return right / len(answers)


def figures(found: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Values by name, and the spread of those that have one."""
    values, spread = dict[str, float](), dict[str, tuple[float, float]]()
    if (led := lead(found)) is not None:
        values["classify_ratio_vs_llamacpp"], spread["classify_ratio_vs_llamacpp"] = led
    for name, side in found.items():
        each = side["requests_per_s"]
        values[f"classify_requests_per_s_{name}"], spread[f"classify_requests_per_s_{name}"] = (
            median(each),
            (min(each), max(each)),
        )
        values[f"classify_right_{name}"] = side["right"]
    return values, spread


def lead(found: Mapping[str, Any]) -> tuple[float, tuple[float, float]] | None:
    """Requests a second: our fastest over the fastest rival that writes the labels; None without rivals."""
    mine = [found[side.name]["requests_per_s"] for side in (*WEIGHING, *HEADS) if side.name in found]
    others = [found[side.name]["requests_per_s"] for side in WRITING if side.name in found]
    if not mine or not others:
        return None
    ratios = [ours / theirs for ours, theirs in zip(max(mine, key=median), max(others, key=median), strict=True)]
    return median(ratios), (min(ratios), max(ratios))


def table(found: Mapping[str, Any]) -> str:
    """Sides and what they reach, in Markdown."""
    rows = [
        [side.title, f"{median(found[side.name]['requests_per_s']):.1f}", f"{found[side.name]['right']:.3f}"]
        for side in (*WEIGHING, *HEADS, *WRITING)
        if side.name in found
    ]
    return lines(("labels, eight streams", "requests/s", "right"), rows)


if __name__ == "__main__":
    main()
