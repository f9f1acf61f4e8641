"""Banking77: a customer's message to a bank gets one of 77 intents.

The rows are PolyAI's (CC-BY-4.0): https://github.com/PolyAI-LDN/task-specific-datasets, files `banking_data/train.csv`
and `banking_data/test.csv` with the columns `text` and `category`.

An answer is a JSON object with the intent alone. As a classification every label would be scored for every row as
well, 77 of them, which takes the teacher two seconds a row on two cores and no figure here needs.
"""

from __future__ import annotations

import csv
from pathlib import Path

from _headline.corpus import LABEL, Corpus, by_intent, new_rows
from slmops.errors import BadInput
from slmops.tasks import Row

TEST = 13
"""Test rows of each intent, the first ones of the file: 1,001 of 3,080."""


def read(folder: Path) -> Corpus:
    """The corpus of `train.csv` and `test.csv` in `folder`.

    Raises:
        BadInput: a file is missing or has not these columns.
    """
    test = [row for rows in by_intent(_rows(folder / "test.csv")).values() for row in rows[:TEST]]
    kept, left_out = new_rows(_rows(folder / "train.csv"), _rows(folder / "test.csv"))
    intents = sorted(by_intent([*kept, *test]))
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {LABEL: {"enum": intents}},
        "required": [LABEL],
        "additionalProperties": False,
    }
    # The rarest intent has 35 texts, so fewer are drawn of each than on SNIPS.
    return Corpus(schema, kept, test, left_out, few=10, validation=5, pool=30, given_up=2)


def _rows(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {
                    "id": f"{path.stem}-{number}",
                    "input": " ".join(row["text"].split()),
                    "output": {LABEL: row["category"]},
                }
                for number, row in enumerate(csv.DictReader(file), 1)
            ]
    except (OSError, AttributeError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a file of Banking77: {error!r}", hint=__doc__.split("\n\n")[1]) from None
