"""The rows of a recipe as a student is shown them, before any is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from slmops.data.read import read_jsonl
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.keys import address
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.plan.names import base_node
from slmops.pipeline.plan.rows import made, prepared
from slmops.pipeline.store import Store
from slmops.recipe.models import Recipe
from slmops.recipe.student import Head
from slmops.tasks import Row, Task, task_of
from slmops.train.lessons import labelled_examples

Side = Literal["train", "validation", "test", "pool"]


@dataclass(frozen=True)
class Rendered:
    """The tokens of a row, as text with its control tokens.

    Attributes:
        prompt: what gives context, and is masked in the loss.
        learned: what the loss covers; None where a student that labels reads the prompt alone and learns its labels,
            and where the row has no answer.
        prompt_tokens, learned_tokens: how many tokens both have; of a student that labels, those whose label it learns.
    """

    id: str
    prompt: str
    learned: str | None
    prompt_tokens: int
    learned_tokens: int


@dataclass(frozen=True)
class ShownRows:
    """Rows of one side, checked, screened and parted as a run has them.

    Attributes:
        rows: the first of them.
        rendered: the same rows in tokens, without those that a student that labels cannot learn; None where that was
            not asked for.
        counts: rows of each side, rows that were dropped by side and reason, and rows of each label.
    """

    rows: list[Row]
    rendered: list[Rendered] | None
    counts: dict[str, Any]


def shown(recipe: Recipe, side: Side, most: int, *, rendered: bool, home: Path) -> ShownRows:
    """The first `most` rows of `side`. What a run has made of them is used; what it has not is made, and not kept.

    Args:
        rendered: also as the student's tokenizer and chat template write them.

    Raises:
        BadInput: the rows or the model cannot be used; see `nodes_for`.
    """
    with prepared(recipe, home) as data:
        rows = list(islice(read_jsonl(data / f"{side}.jsonl"), most))
        task = task_of(data)
        counts = json.loads((data / "data.json").read_text(encoding="utf-8"))
    if not rendered:
        return ShownRows(rows, None, counts)
    steps = {step.node.id: step for step in address(nodes_for(recipe), recipe.seed)}
    with made(steps[base_node(recipe)], Store(home)) as model:
        tokenizer = Tokenizer.load(model / "model")
    return ShownRows(rows, list(_rendered(rows, task, tokenizer, recipe.student.head)), counts)


def _rendered(rows: Sequence[Row], task: Task, tokenizer: Tokenizer, head: Head) -> Iterator[Rendered]:
    """Of the same examples that the trainer gets."""

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.backend.decode(list(ids), skip_special_tokens=False))

    if not all("output" in row for row in rows):
        for row in rows:
            asked = tokenizer.prompt(task.render(row["input"]))
            yield Rendered(row["id"], text(asked), None, len(asked), 0)
        return
    for example, id in zip(*labelled_examples(rows, task, tokenizer, head), strict=True):
        labels = example.labels is not None
        counting = len(example.answer) if example.certainty is None else sum(one > 0 for one in example.certainty)
        prompt = example.prompt + example.answer if labels else example.prompt
        learned = None if labels else text(example.answer)
        yield Rendered(id, text(prompt), learned, len(prompt), counting)
