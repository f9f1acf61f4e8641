"""Training speed and memory on a GPU against TRL, in bfloat16: `benchmarks/train.py` with larger steps and more rows.

Memory is what PyTorch took of the GPU at most. Both sides keep float32 masters: TRL computes in bfloat16 under
autocast, we with weights in bfloat16. Model, rows, loss, optimiser and figures are those of `benchmarks/train.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import train as on_processor
from _contract import machine_with_gpu, publish
from _sides import rival_python

from slmops.models.device import fastest_device

ON_GPU = {"bf16": True, "use_cpu": False}
SIZE = on_processor.Size(
    random=False,
    rows=1500,
    batch_tokens=8192,
    student_layers=12,
    freeze_layers=12,
    trial_steps=-1,
    options={
        "sft": {"grouped": on_processor.GROUPED | ON_GPU, "packed": on_processor.PACKED | ON_GPU},
        "kd": {"grouped": on_processor.GROUPED | ON_GPU},
    },
    precision="bf16",
)


def main() -> None:
    first, *_ = __doc__.splitlines()
    parser = argparse.ArgumentParser(description=first)
    parser.add_argument("--rival", type=Path, help="a Python that has TRL; else one is made from its lock")
    parser.add_argument("--home", type=Path, default=on_processor.ROOT / ".slmops", help="folder for model and rival")
    arguments = parser.parse_args()
    if fastest_device() != "cuda":
        sys.exit("there is no GPU here: make bench-train measures on the processor")
    python = arguments.rival or rival_python(on_processor.RIVAL, on_processor.LOCK, arguments.home)
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="slmops-train-") as work:
        found = on_processor.measure(SIZE, arguments.home, python, Path(work), threads)
    figures = on_processor.figures(found)
    publish("gpu-train", figures, goals=on_processor.GOALS, spread=on_processor.spread(found), on=machine_with_gpu())


if __name__ == "__main__":
    main()
