"""Serving against llama.cpp, OpenVINO, Foundry Local and transformers: same weights, same tokens, same threads.

The model is the one that `compress.py` trains on tickets, in four and in eight bits as each side makes them. A load is
a number of streams, which begin one after the other; each asks its next request when the last is answered, greedily and
for a number of tokens that differs from request to request. Prompts are short ones that have nothing in common, or
begin alike: instructions and examples, some 600 tokens, that nobody has seen before the load. HTTP is left out for all:
ours is what `slmops serve` runs, from the queue inwards.

A rival does what its own server does. llama.cpp is driven through its C interface by the loop of llama-server: slots,
one batch of whatever is there, beginnings kept within a slot. OpenVINO is GenAI's continuous batching with its prefix
cache, Foundry Local its SDK with a session for each request, transformers `generate` in static batches. The last two
are measured in one round, the others in every round in turn, each in a process of its own.

`lead_over_best_at_*` is output tokens a second of our fastest runtime over the fastest rival: the median over rounds.
`first_*` is the time to the first token, waiting included, and `next_*` from each to the next. Memory is the process's
high-water mark after all loads. `as_fp32_*` is how many tokens of the answers are those of the unrounded weights: it
tells that a side serves this model. `floor_utilisation` is the share of a token's time that would go into reading all
weights once, as fast as this machine reads a large array with as many threads; `prefill_floor_utilisation` the products
of reading the long beginning a second, over those of a float32 matrix product.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import compress
from _compress_subjects import Amount, Tuned, tickets_subject, tuned
from _contract import publish
from _serve_figures import as_exact, figures, table
from _serve_sides import EXACT, INT4, OURS, THEIRS, Side
from _serve_traffic import loads, warm_up
from _sides import RIVALS, model_folder, read_found, rival_python, run_rival, write_job

STAGGER_S = 0.02
GOALS = {
    **{f"lead_over_best_at_{streams}_{kind}": 1.25 for kind in ("short", "prefix") for streams in (1, 8, 32)},
}

Run = Callable[[str, Mapping[str, Any]], dict[str, Any]]
"""Runs a job of a side under a name and gives what it found."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        random: serve a small random model instead of the real one.
        sides: names.
        streams: how many at a time, and how many requests each asks.
        lengths: tokens of answers.
    """

    random: bool
    tickets: Amount
    sides: Sequence[str]
    streams: Mapping[int, int]
    lengths: Sequence[int]
    prefix_tokens: int
    rounds: int


FULL = Size(
    random=False,
    tickets=compress.FULL.tickets,
    sides=[side.name for side in (*OURS, *THEIRS)],
    streams={1: 4, 8: 3, 32: 2},
    lengths=(16, 32, 48),
    prefix_tokens=600,
    rounds=2,
)
QUICK = Size(
    random=True,
    tickets=compress.QUICK.tickets,
    sides=[INT4, "llamacpp_q4_0", "foundry", EXACT],
    streams={1: 2, 8: 1, 32: 1},
    lengths=(4, 8),
    prefix_tokens=100,
    rounds=1,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all sides")
    parser.add_argument("--home", type=Path, default=compress.ROOT / ".slmops", help="folder for models and rivals")
    parser.add_argument("--quick", action="store_true", help="a small random model, one side of most; not kept")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="slmops-serve-") as work:
        place = Place(arguments.home, Path(work), arguments.threads)
        found = measure(size, place)
    values, spread = figures(found)
    print(f"{table(found)}\n")
    publish("serve", values, goals=GOALS, spread=spread, keep=not arguments.quick)


@dataclass(frozen=True)
class Place:
    """Where models and rivals are kept, a folder for work, and threads of all sides."""

    home: Path
    work: Path
    threads: int


def measure(size: Size, place: Place) -> dict[str, Any]:
    """Everything: sides by load, and what the machine can do."""
    runs = runners([side for side in (*OURS, *THEIRS) if side.name in size.sides], place)
    base = model_folder(place.home, compress.MODEL)
    if size.random:
        from _train_ours import random_model

        base = random_model(base, place.work / "base", width=256)
    home = place.work if size.random else place.home
    train = partial(compress.own, place.work, threads=place.threads)
    model = tuned(tickets_subject(size.tickets), base, home, train)
    asked = loads(model, size.streams, size.lengths, size.prefix_tokens)
    return {
        "loads": list(asked),
        "prefix_tokens": len(asked["prefix_1"][0][0]["prompt"]),
        "inner_parameters": inner_parameters(model.folder / "model"),
        "sides": of_writing(size, place, model, runs, asked),
        "bytes_per_s": train("read", {"job": "read"})["bytes_per_s"],
        "products_per_s": ours(place, "multiply", {"job": "multiply"})["products_per_s"],
    }


def of_writing(
    size: Size, place: Place, model: Tuned, runs: Mapping[Side, Run], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """What each side found, by name: its rounds, and how near it is to the exact weights."""
    made = make(place, model, runs)
    common = {"job": "serve", "ends": [], "labels": False, "stagger_s": STAGGER_S, "loads": asked}
    common |= {"streams": max(size.streams), "room": room(asked), "warm_up": warm_up(model, size.lengths)}
    found = {side.name: {**made[side], "rounds": []} for side in made}
    for number in range(size.rounds):
        for side in made:
            if not (side.once and number):
                job = {**common, "model": made[side]["model"]}
                found[side.name]["rounds"].append(runs[side](f"serve-{side.name}-{number}", job))
    ends = sorted(model.tokenizer.end_ids)
    for name, one in found.items():
        # Foundry gives text alone.
        if EXACT in found and name != "foundry":
            one["as_fp32"] = as_exact(one, found[EXACT], ends)
    return found


def room(asked: Mapping[str, Any]) -> int:
    """Tokens of the longest request with its answer."""
    every = (ask for streams in asked.values() for stream in streams for ask in stream)
    return max(len(ask["prompt"]) + ask["tokens"] for ask in every)


def make(place: Place, model: Tuned, runs: Mapping[Side, Run]) -> dict[Side, dict[str, Any]]:
    """What each side converted the model to; a rival that cannot is left out, and that is said."""
    made: dict[Side, dict[str, Any]] = {}
    folder = place.work / model.subject.name
    folder.mkdir(exist_ok=True)
    for side, run in runs.items():
        settings = dict(side.settings)
        if side.rival and side.rival.name == "foundry":
            # It converts nothing: it serves the folder that ours made.
            settings["made"] = next(one["folder"] for other, one in made.items() if other.name == INT4)
        name = f"make-{model.subject.name}-{side.name}"
        job = {"job": "make", "source": str(model.folder), "out": str(folder / side.name), "settings": settings}
        try:
            made[side] = run(name, job | {"texts": []})
        except SystemExit as failure:
            print(f"{side.title} is left out, for it cannot make the model: {failure}", file=sys.stderr)
    return made


def inner_parameters(folder: Path) -> int:
    """Weights that every token is multiplied with: all but the embedding's."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return compress.parameters(folder) - config["vocab_size"] * config["hidden_size"]


def runners(sides: Iterable[Side], place: Place) -> dict[Side, Run]:
    """How to run jobs of each of `sides` that is there."""
    found: dict[Side, Run] = {}
    for side in sides:
        if side.rival is None:
            found[side] = partial(ours, place)
        elif side.rival.own:
            found[side] = partial(theirs, place, side, Path(sys.executable))
        elif python := rival_python(side.rival.title, side.rival.lock, place.home):
            found[side] = partial(theirs, place, side, python)
    return found


def ours(place: Place, name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """What one of our jobs found, in a process of its own."""
    write_job(place.work, name, {**job, "threads": place.threads})
    environment = {**os.environ, "OMP_NUM_THREADS": str(place.threads)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(RIVALS), os.environ.get("PYTHONPATH")]))
    script = str(Path(__file__).with_name("_serve_ours.py"))
    told = [sys.executable, script, str(place.work), name]
    subprocess.run(told, check=True, env=environment, stdout=subprocess.DEVNULL)
    return read_found(place.work, name)


def theirs(place: Place, side: Side, python: Path, name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a rival.

    Raises:
        SystemExit: it failed.
    """
    assert side.rival  # noqa: S101
    write_job(place.work, name, {**job, "threads": place.threads})
    arguments = [str(place.work), name]
    run_rival(side.rival.title, python, side.rival.script.name, arguments, work=place.work, threads=place.threads)
    return read_found(place.work, name)


if __name__ == "__main__":
    main()
