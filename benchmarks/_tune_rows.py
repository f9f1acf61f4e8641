"""The rows of the benchmark of fine-tuning: few of each intent of Banking77 and SNIPS, as a user's first labels are."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _headline import banking77, snips
from _headline.corpus import Corpus, by_intent

from slmops.data.read import write_jsonl
from slmops.tasks import Row

READERS = {"banking77": banking77.read, "snips": snips.read}
FIGURES = {"banking77": "exact_match", "snips": "field_f1"}
"""What a method is judged by. Of Banking77 an answer is the intent alone, so exact match is accuracy; of SNIPS, F1 of
the slots."""


@dataclass(frozen=True)
class Few:
    """Rows of each intent: to train on, to hold out of it, to test on; of so many intents, None for all."""

    train: int
    validation: int
    test: int
    intents: int | None = None


def write(task: str, source: Path, few: Few, folder: Path, seed: int) -> list[str]:
    """The rows of `task` below `folder`, and what a recipe is to be told of them."""
    corpus: Corpus = READERS[task](source / task)
    names = sorted(by_intent(corpus.train))[: few.intents]
    labelled = _drawn(corpus.train, names, few.train + few.validation, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", labelled)
    write_jsonl(folder / "test.jsonl", _drawn(corpus.test, names, few.test, seed))
    (folder / "schema.json").write_text(json.dumps(_schema(corpus, names)), encoding="utf-8")
    paths = {"data.train": "train.jsonl", "data.test": "test.jsonl", "task.schema": "schema.json"}
    share = few.validation / (few.train + few.validation)
    return [
        f"name=tune-{task}",
        f"data.split.validation={share!r}",
        *(f"{key}={json.dumps(str(folder / name))}" for key, name in paths.items()),
    ]


def _drawn(rows: Sequence[Row], intents: Sequence[str], count: int, seed: int) -> list[Row]:
    """`count` rows of each intent."""
    of = by_intent(rows)
    drawn = {name: random.Random(f"{seed}:{name}").sample(of[name], min(count, len(of[name]))) for name in intents}  # noqa: S311 - no secret
    return [row for name in intents for row in drawn[name]]


def _schema(corpus: Corpus, intents: Sequence[str]) -> dict[str, Any]:
    assert corpus.schema  # noqa: S101 - both tasks have one
    properties = corpus.schema["properties"] | {"intent": {"enum": list(intents)}}
    return corpus.schema | {"properties": properties}
