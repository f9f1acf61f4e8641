"""Runs in the project's own environment: transformers' `generate` on the weights as they are, in static batches.

Its continuous batching runs on a processor too, but many times slower: every token attends to the whole pool of pages.
So what waits is made a batch, and who comes meanwhile waits for its last answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from measuring import Job, size_bytes
from serving import Ask, Came, Progress, main
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class Generate:
    """See `serving.Server`."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job["threads"])
        self._model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
        self._most, self._progress = job["streams"], Progress(job["ends"])
        self._waiting: list[tuple[int, list[int], int]] = []
        self._came: SimpleQueue[list[Came]] = SimpleQueue()
        self._batch: Thread | None = None

    def ask(self, request: int, ask: Ask) -> None:
        self._progress.begin(request, ask["tokens"])
        self._waiting.append((request, list(ask["prompt"]), ask["tokens"]))

    def step(self) -> list[Came]:
        if self._batch is None:
            now, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            self._batch = Thread(target=self._generate, args=(now,), daemon=True)
            self._batch.start()
        if not (came := self._came.get()):
            self._batch = None
        return came

    def _generate(self, batch: Sequence[tuple[int, list[int], int]]) -> None:
        longest = max(len(prompt) for _, prompt, _ in batch)
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for _, prompt, _ in batch])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for _, prompt, _ in batch])
        told = _Told([request for request, _, _ in batch], self._progress, self._came)
        self._model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(tokens for _, _, tokens in batch),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([told]),
        )
        # Nothing came: the batch is done.
        self._came.put([])


class _Told(StoppingCriteria):
    """Passes on the tokens of a step, and says which answers are done."""

    def __init__(self, requests: Sequence[int], progress: Progress, came: SimpleQueue[list[Came]]) -> None:
        self._requests, self._progress, self._queue = requests, progress, came
        self._done = torch.zeros(len(requests), dtype=torch.bool)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        came = []
        for row, request in enumerate(self._requests):
            if not self._done[row]:
                came.append(self._progress.take(request, int(input_ids[row, -1])))
                self._done[row] = came[-1].last
        self._queue.put(came)
        return self._done


def make(job: Job, work: Path) -> Mapping[str, Any]:  # noqa: ARG001
    """There is nothing to convert."""
    begun, model = time.perf_counter(), Path(job["source"]) / "model"
    size = size_bytes(model, ".safetensors")
    return {"model": str(model), "size_bytes": size, "make_s": time.perf_counter() - begun}


if __name__ == "__main__":
    main(Generate, make)
