"""The rows of the training benchmark: tickets read out of threads of one to six messages, so that lengths vary."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

MESSAGES = (1, 1, 1, 2, 3, 6)
"""Messages of a thread, each number as likely as the others: many short rows and a few long ones, as in a mailbox."""

Row = dict[str, Any]


def threads_of_messages(count: int, seed: int) -> list[Row]:
    """`count` rows whose input is a thread of messages and whose output is the ticket of the last one."""
    from slmops.samples.tickets import tickets

    rng = random.Random(seed)  # noqa: S311 - no secret
    sizes = [rng.choice(MESSAGES) for _ in range(count)]
    messages = iter(tickets("train", sum(sizes), seed))
    threads = [[next(messages) for _ in range(size)] for size in sizes]
    return [
        {"id": f"row-{i}", "input": "\n\n".join(part["input"] for part in thread), "output": thread[-1]["output"]}
        for i, thread in enumerate(threads)
    ]


def as_tokens(rows: Sequence[Row], model: Path) -> list[dict[str, list[int]]]:
    """`prompt` and `answer` of each row in the words of a model's tokenizer: what both sides are given."""
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import Extraction
    from slmops.train.prepare import reference_examples

    schema = json.loads(files("slmops.samples").joinpath("ticket.schema.json").read_text(encoding="utf-8"))
    examples = reference_examples(rows, Extraction(schema, "intent", None, 96), Tokenizer.load(model))
    return [{"prompt": list(example.prompt), "answer": list(example.answer)} for example in examples]
