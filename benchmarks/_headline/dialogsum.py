"""DialogSum: a dialogue becomes a summary.

The rows are DialogSum's (CC BY-NC-SA 4.0, for measurement only): https://github.com/cylnlp/dialogsum, files
`DialogSum_Data/dialogsum.dev.jsonl` and `dialogsum.test.jsonl`, here called `dev.jsonl` and `test.jsonl`. A line has a
`dialogue` and its `summary`; in the test set there are three, of which any is right. The 500 of the dev set are what is
learned from: more would take days on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path

from _headline.corpus import Corpus, new_rows
from slmops.errors import BadInput
from slmops.tasks import Row

TEST = 200
"""Test dialogues, the first ones of 500."""


def read(folder: Path) -> Corpus:
    """The corpus of `dev.jsonl` and `test.jsonl` in `folder`.

    Raises:
        BadInput: a file is missing or not of this form.
    """
    test = _rows(folder / "test.jsonl")
    kept, left_out = new_rows(_rows(folder / "dev.jsonl"), test)
    return Corpus(None, kept, test[:TEST], left_out, few=120, validation=60, pool=None, given_up=20)


def _rows(path: Path) -> list[Row]:
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{"id": one["fname"], "input": one["dialogue"], "output": _summaries(one)} for one in records]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not a file of DialogSum: {error!r}", hint=__doc__.split("\n\n")[1]) from None


def _summaries(record: dict[str, str]) -> str | list[str]:
    if "summary" in record:
        return record["summary"]
    return [record[f"summary{number}"] for number in (1, 2, 3)]
