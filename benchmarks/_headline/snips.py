"""SNIPS: a sentence becomes an intent and its slots.

The rows are the seven intents of Snips' benchmark of custom intent engines (CC0), 300 training and 100 test sentences
each: https://github.com/sonos/nlu-benchmark, folder 2017-06-custom-intent-engines, files `train_INTENT.json` and
`validate_INTENT.json`. Each sentence comes in pieces, some of which are marked as the value of a slot:
`{"INTENT": [{"data": [{"text": "play "}, {"text": "jazz", "entity": "genre"}]}]}`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from _headline.corpus import LABEL, Corpus, new_rows
from slmops.errors import BadInput
from slmops.tasks import Row

PARTS = "train", "validate"
_SOURCE = __doc__.split("\n\n")[1]


Sentence = Sequence[Mapping[str, str]]
"""Pieces with `text`, some of them with `entity`, the slot that the text is the value of."""


def read(folder: Path) -> Corpus:
    """The corpus in `folder` or folders below it; `validate` is the test set, as it is published.

    Raises:
        BadInput: a file is missing or not of this form, or a test sentence fills a slot twice.
    """
    intents = sorted(path.stem.removeprefix("validate_") for path in folder.rglob("validate_*.json"))
    if len(intents) < 2:
        raise BadInput(f"{folder}: no validate_INTENT.json of several intents", hint=_SOURCE)
    train, test = ({intent: _sentences(folder, part, intent) for intent in intents} for part in PARTS)
    rows, test_rows = _rows(train), _rows(test)
    if len(test_rows) < sum(map(len, test.values())):
        raise BadInput(f"{folder}: a test sentence fills a slot twice, which no flat object can say")
    kept, left_out = new_rows(rows, test_rows)
    if twice := sum(map(len, train.values())) - len(rows):
        left_out["fills a slot twice"] = twice
    schema = _schema(intents, [one for of_one in train.values() for one in of_one], test_rows)
    return Corpus(schema, kept, test_rows, left_out, few=40, validation=30, pool=None, given_up=10)


def _sentences(folder: Path, part: str, intent: str) -> list[Sentence]:
    name = f"{part}_{intent}.json"
    path = next(iter(sorted(folder.rglob(name))), None)
    if path is None:
        raise BadInput(f"{folder}: there is no {name}", hint=_SOURCE)
    try:
        sentences = [one["data"] for one in json.loads(_decoded(path.read_bytes()))[intent]]
        if not all(isinstance(piece["text"], str) for one in sentences for piece in one):
            raise TypeError("a text is none")
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a file of SNIPS: {error!r}", hint=_SOURCE) from None
    return sentences


def _decoded(content: bytes) -> str:
    """Most of the published files are UTF-8, and some Latin-1, whose accents are hardly ever valid UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _rows(sentences: Mapping[str, Sequence[Sentence]]) -> list[Row]:
    """A row for each sentence, but of those that fill a slot twice.

    Blanks are single, in texts and values alike, so that a value is a part of its text.
    """
    rows = []
    for intent, of_one in sentences.items():
        for number, pieces in enumerate(of_one, 1):
            slots = [(piece["entity"], _single(piece["text"])) for piece in pieces if "entity" in piece]
            if len(dict(slots)) == len(slots):
                text = _single("".join(piece["text"] for piece in pieces))
                rows.append({"id": f"{intent}-{number}", "input": text, "output": {LABEL: intent, **dict(slots)}})
    return rows


def _single(text: str) -> str:
    return " ".join(text.split())


def _schema(intents: Sequence[str], train: Sequence[Sentence], test: Sequence[Row]) -> dict[str, Any]:
    """The intent, then every slot as an optional text.

    Answers are written in this order, so slots stand in the order in which training sentences tend to have their
    values: a model that copies then reads on instead of jumping back.
    """
    places: defaultdict[str, list[float]] = defaultdict(list)
    for pieces in train:
        before = 0
        whole = sum(len(piece["text"]) for piece in pieces)
        for piece in pieces:
            if "entity" in piece:
                places[piece["entity"]].append(before / whole)
            before += len(piece["text"])
    slots = sorted(places, key=lambda slot: (fmean(places[slot]), slot))
    slots += sorted({slot for row in test for slot in row["output"]} - {LABEL, *slots})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {LABEL: {"enum": list(intents)}, **{slot: {"type": "string"} for slot in slots}},
        "required": [LABEL],
        "additionalProperties": False,
    }
