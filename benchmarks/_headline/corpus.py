"""Labelled rows as a task's data set, and the part of them that one setting may learn from."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from slmops.data.check import Screen
from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.tasks import Row

Setting = Literal["few", "all"]
LABEL = "intent"
"""The property of every answer that is a class."""


@dataclass(frozen=True)
class Corpus:
    """Rows `{"id", "input", "output"}`; an intent below is that of outputs which are objects, and one for all others.

    Attributes:
        schema: JSON Schema of the outputs, or None where they are texts.
        train: rows with texts that stand neither in `test` nor twice.
        test: rows that figures are of.
        left_out: rows of the source that are not in `train`, counted by reason.
        few: labelled rows of each intent in the setting `few`.
        validation: labelled rows of each intent that are kept for choices, in either setting.
        pool: most texts of each intent whose answers are the teacher's, in the setting `few`; None takes all others.
        given_up: texts of each intent that make the pool of the setting `all`, their labels unused: a run needs texts
            for the teacher to answer.
    """

    schema: dict[str, Any] | None
    train: Sequence[Row]
    test: Sequence[Row]
    left_out: Mapping[str, int]
    few: int
    validation: int
    pool: int | None
    given_up: int

    def smaller(self) -> Corpus:
        """A few rows of each intent, for a first look."""
        test = [row for rows in by_intent(self.test).values() for row in rows[:3]]
        return replace(self, test=test, few=4, validation=2, pool=4)

    def brief(self) -> Corpus:
        """All that a teacher is fitted on, and of the rest as little as there must be, for figures of time alone."""
        test = [row for rows in by_intent(self.test).values() for row in rows[:6]]
        return replace(self, test=test, validation=2, pool=4)


@dataclass(frozen=True)
class Files:
    """A setting's rows as a recipe reads them; `validation` is the share of `train` that is kept for choices."""

    train: Path
    pool: Path
    test: Path
    schema: Path | None
    validation: float

    def overrides(self) -> list[str]:
        """What a recipe is to be told. Paths are quoted: YAML reads some of them as something else."""
        paths = {f"data.{side}": getattr(self, side) for side in ("train", "pool", "test")}
        if self.schema is not None:
            paths["task.schema"] = self.schema
        return [f"{key}={json.dumps(str(path))}" for key, path in paths.items()] + [
            f"data.split.validation={self.validation!r}"
        ]


def new_rows(train: Iterable[Row], test: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """The rows of `train` whose texts are new, and why the others are left out; a text's case and blanks count not."""
    screen = Screen()
    screen.remember(test, "test")
    kept = list(screen.sift(train, "train"))
    return kept, Counter(row["detail"] for row in screen.dropped)


def by_intent(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each intent, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        output = row["output"]
        found.setdefault(output[LABEL] if isinstance(output, dict) else "any", []).append(row)
    return found


def parted(corpus: Corpus, setting: Setting, seed: int) -> tuple[list[Row], list[Row]]:
    """Labelled rows, those for validation among them, and the texts of the pool, without answers.

    Raises:
        BadInput: an intent has too few rows for the setting.
    """
    labelled: list[Row] = []
    pool: list[Row] = []
    wanted = corpus.few + corpus.validation
    for intent, rows in by_intent(corpus.train).items():
        if len(rows) <= max(wanted, corpus.given_up + corpus.validation):
            raise BadInput(
                f"{len(rows)} different training texts of {intent} are too few: {wanted} keep their labels "
                "and some must be left for the teacher",
                hint="give the files as they are published",
            )
        # Drawn by intent, so that no intent's rows depend on how many another one has.
        drawn = random.Random(f"{seed}:{intent}").sample(rows, len(rows))  # noqa: S311 - no secret
        if setting == "few":
            labelled += drawn[:wanted]
            pool += drawn[wanted:][: corpus.pool]
        else:
            labelled += drawn[corpus.given_up :]
            pool += drawn[: corpus.given_up]
    return labelled, [{"id": row["id"], "input": row["input"]} for row in pool]


def write(corpus: Corpus, setting: Setting, seed: int, folder: Path) -> Files:
    """The setting's files in `folder`; the same rows and seed write the same bytes, while others may read them."""
    labelled, pool = parted(corpus, setting, seed)
    folder.mkdir(parents=True, exist_ok=True)
    share = corpus.validation * len(by_intent(labelled)) / len(labelled)
    schema = None if corpus.schema is None else folder / "schema.json"
    files = Files(*(folder / f"{side}.jsonl" for side in ("train", "pool", "test")), schema, share)
    with TemporaryDirectory(dir=folder) as name:
        draft = Path(name)
        for path, rows in ((files.train, labelled), (files.pool, pool), (files.test, corpus.test)):
            write_jsonl(draft / path.name, rows)
        if schema is not None:
            text = json.dumps(corpus.schema, indent=2, ensure_ascii=False) + "\n"
            (draft / schema.name).write_text(text, encoding="utf-8")
        for path in draft.iterdir():
            path.replace(folder / path.name)
    return files
