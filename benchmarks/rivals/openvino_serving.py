"""Runs in the environment of openvino.lock: GenAI's continuous batching, prefixes shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from measuring import Job
from openvino_side import CACHE_GB, make
from serving import Ask, Came, Progress, main


class Pipeline:
    """See `serving.Server`."""

    def __init__(self, job: Job) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs = CACHE_GB, job["streams"]
        scheduler.enable_prefix_caching = True
        threads = {"INFERENCE_NUM_THREADS": job["threads"]}
        self._pipeline = genai.ContinuousBatchingPipeline(Path(job["model"]), scheduler, "CPU", threads)
        self._ends = set(job["ends"])
        self._progress, self._running = Progress(self._ends), dict[int, Any]()

    def ask(self, request: int, ask: Ask) -> None:
        config = genai.GenerationConfig(max_new_tokens=ask["tokens"], do_sample=False, stop_token_ids=self._ends)
        config.ignore_eos = not self._ends
        self._progress.begin(request, ask["tokens"])
        given = ov.Tensor(np.array([ask["prompt"]], dtype=np.int64))
        self._running[request] = self._pipeline.add_request(request, given, config)

    def step(self) -> list[Came]:
        self._pipeline.step()
        came = []
        for request, handle in list(self._running.items()):
            while request in self._running and handle.can_read():
                for token in next(iter(handle.read().values())).generated_ids:
                    came.append(self._progress.take(request, token))
                    if came[-1].last:
                        del self._running[request]
        return came


if __name__ == "__main__":
    main(Pipeline, make)
