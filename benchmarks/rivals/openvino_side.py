"""Runs in the environment of openvino.lock: int4 weights by NNCF as optimum exports them, run by OpenVINO GenAI."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino_genai as genai
from measuring import Answers, Job, Prompts, Written, log_probs_of, main, size_bytes

CACHE_GB = 1

EXPORT = "import sys; sys.modules['torchvision'] = None; from optimum.commands.optimum_cli import main; main()"
"""`optimum-cli` without torchvision, which it asks for, does not need, and which may be built for another torch."""


class Pipeline:
    """Answers by continuous batching, which is GenAI's way to run a model, and log-probabilities from the graph."""

    def __init__(self, job: Job) -> None:
        self._folder, self._threads = Path(job["model"]), {"INFERENCE_NUM_THREADS": job["threads"]}
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        self._pipeline = genai.ContinuousBatchingPipeline(self._folder, scheduler, "CPU", self._threads)
        self._graph: Any = None

    def log_probs(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        if self._graph is None:
            core = ov.Core()
            self._graph = core.compile_model(self._folder / "openvino_model.xml", "CPU", self._threads)
            self._graph = self._graph.create_infer_request()
        self._graph.reset_state()
        tokens = np.array([ids], dtype=np.int64)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "position_ids": np.arange(len(ids))[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        return log_probs_of(next(iter(self._graph.infer(given).values()))[0], ids)

    def write(self, prompts: Prompts, limit: int, ends: Collection[int]) -> Written:
        config = genai.GenerationConfig(max_new_tokens=limit, do_sample=False, stop_token_ids=set(ends))
        config.ignore_eos = not ends
        handles = [
            self._pipeline.add_request(number, ov.Tensor(np.array([ids], dtype=np.int64)), config)
            for number, ids in enumerate(prompts)
        ]
        answers = Answers(len(prompts), limit, ends)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            new = [next(iter(handle.read().values())).generated_ids if handle.can_read() else [] for handle in handles]
            if any(new):
                answers.take([ids[-1] if ids else 0 for ids in new])
        return answers.done()


def make(job: Job, work: Path) -> dict[str, Any]:  # noqa: ARG001
    """What `optimum-cli export openvino --weight-format` makes: int8, or int4 in groups that go into its width."""
    source, out = Path(job["source"]) / "model", Path(job["out"])
    command = [sys.executable, "-c", EXPORT, "export", "openvino", "--model", source]
    weights = job["settings"].get("weights", "int4")
    command += ["--task", "text-generation-with-past", "--weight-format", weights]
    if weights == "int4":
        # Its groups of 128 do not go into a width of 576, where it would stop.
        command += ["--group-size", "128", "--ratio", "1.0", "--group-size-fallback", "adjust"]
    begun = time.perf_counter()
    done = subprocess.run([*command, out], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"optimum-cli: {done.stdout.decode()[-2000:]}")
    seconds = time.perf_counter() - begun
    return {"model": str(out), "size_bytes": size_bytes(out, "openvino_model.bin"), "make_s": seconds}


if __name__ == "__main__":
    main(Pipeline, make)
