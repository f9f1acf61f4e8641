"""A process that serves one bundle and nothing else: questions come as lines of JSON, and so do the answers.

Run as `python -m slmops.evaluate.checklist.serve BUNDLE THREADS`. It keeps nothing between two questions, so what its
memory gains is gained by serving.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from slmops.bundle import Bundle, open_bundle
from slmops.errors import BadInput
from slmops.evaluate.process import rss_bytes


def serve(bundle: Bundle, questions: TextIO, answers: TextIO) -> None:
    """Answer until there are no more questions.

    A question is `{"predict": text}`, `{"greedy": [text, …]}` or `{"info": true}`. An answer is `{"answers": [...]}` or
    `{"info": {...}}`, or `{"refused": why}` for bad input, or `{"error": what}` for anything that should not happen;
    and `rss_bytes`.
    """
    for line in questions:
        try:
            reply = _reply(bundle, json.loads(line))
        except BadInput as error:
            reply = {"refused": str(error)}
        except Exception as error:  # the checklist judges it
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply | {"rss_bytes": rss_bytes()}) + "\n")
        answers.flush()


def _reply(bundle: Bundle, question: dict[str, Any]) -> dict[str, Any]:
    if "predict" in question:
        prediction = bundle.predict(question["predict"])
        return {"answers": [{"text": prediction.text, "tokens": prediction.tokens}]}
    if "greedy" in question:
        return {"answers": _greedy(bundle, question["greedy"])}
    return {"info": asdict(bundle.engine.info())}


def _greedy(bundle: Bundle, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The most likely answers, decoded together, with times and with what the model thinks of them."""
    begun = time.perf_counter()
    prompts = [bundle.tokenizer.prompt(bundle.task.render(text)) for text in texts]
    written: list[list[int]] = [[] for _ in texts]
    times: list[list[float]] = [[] for _ in texts]
    scores: list[list[float]] = [[] for _ in texts]
    for token in bundle.engine.generate(prompts, replace(bundle.sampling, temperature=0.0), top_logits=1):
        written[token.request].append(token.id)
        times[token.request].append(time.perf_counter() - begun)
        scores[token.request].append(float(token.top[1][0]) if token.top else 0.0)
    return [
        {
            "text": bundle.tokenizer.decode(ids),
            "tokens": len(ids),
            "prompt_tokens": len(prompt),
            "first_s": clock[0],
            "total_s": clock[-1],
            "confidence": float(np.exp(np.mean(score))),
        }
        for prompt, ids, clock, score in zip(prompts, written, times, scores, strict=True)
    ]


def main() -> None:
    """Serve on the pipe that stdout is; whatever a library prints goes to stderr instead."""
    folder, threads = sys.argv[1:]
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # The process that started this one has checked every byte.
    serve(open_bundle(Path(folder), verify=False, threads=int(threads)), sys.stdin, pipe)


if __name__ == "__main__":
    main()
