"""Runs in the environment of distilabel.lock: `distilabel_rows.py URL TEXTS BATCH FOUND` asks a teacher each text once.

TEXTS is a JSON list. FOUND is written: seconds without importing and loading, those of the processor, and the answers
that came. distilabel asks all of a batch at once and the next one when all have come; it has no other concurrency.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from distilabel.models.llms import OpenAILLM

MAX_TOKENS = 16


def main(url: str, texts: str, batch: str, found: str) -> None:
    llm = OpenAILLM(model="toy", base_url=url, api_key="none")
    llm.load()
    inputs = [[{"role": "user", "content": text}] for text in json.loads(Path(texts).read_text(encoding="utf-8"))]
    answered, size = 0, int(batch)
    begun, worked = time.perf_counter(), time.process_time()
    for start in range(0, len(inputs), size):
        outputs = llm.generate_outputs(inputs=inputs[start : start + size], max_new_tokens=MAX_TOKENS, temperature=0.0)
        answered += sum(output["generations"] == ["refund"] for output in outputs)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - worked
    told = {"seconds": seconds, "cpu_s": cpu_s, "answered": answered}
    Path(found).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
