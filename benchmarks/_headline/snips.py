"""SNIPS: a sentence becomes an intent and its slots.

The rows are the seven intents of Snips' benchmark of custom intent engines (CC0), 300 training and 100 test sentences
each: https://github.com/sonos/nlu-benchmark, folder 2017-06-custom-intent-engines, files `train_INTENT.json` and
`validate_INTENT.json`. Each sentence comes in pieces, some of which are marked as the value of a slot:
`{"INTENT": [{"data": [{"text": "play "}, {"text": "jazz", "entity": "genre"}]}]}`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from _headline.corpus import LABEL, Corpus, new_rows
from slmops.errors import BadInput
from slmops.tasks import Row

PARTS = "train", "validate"
TWICE = "a slot given twice"


def read(folder: Path) -> Corpus:
    """The corpus in `folder` or folders below it; `validate` is the test set, as it is published.

    Raises:
        BadInput: a file is missing or not of this form, or a test sentence fills a slot twice.
    """
    intents = sorted(path.stem.removeprefix("validate_") for path in folder.rglob("validate_*.json"))
    if len(intents) < 2:
        raise BadInput(f"{folder}: no validate_INTENT.json of several intents", hint=__doc__.split("\n\n")[1])
    train, test = ([row for intent in intents for row in _rows(folder, part, intent)] for part in PARTS)
    if any(row["output"] is None for row in test):
        raise BadInput(f"{folder}: a test sentence fills a slot twice, which no flat object can say")
    single = [row for row in train if row["output"] is not None]
    kept, left_out = new_rows(single, test)
    if len(single) < len(train):
        left_out[TWICE] = len(train) - len(single)
    schema = _schema(intents, kept, test)
    return Corpus(schema, kept, test, left_out, few=40, validation=30, pool=None, given_up=10)


def _rows(folder: Path, part: str, intent: str) -> list[Row]:
    name = f"{part}_{intent}.json"
    path = next(iter(sorted(folder.rglob(name))), None)
    if path is None:
        raise BadInput(f"{folder}: there is no {name}", hint=__doc__.split("\n\n")[1])
    try:
        sentences = json.loads(_decoded(path.read_bytes()))[intent]
        return [_row(f"{intent}-{number}", intent, one["data"]) for number, one in enumerate(sentences, 1)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: not a file of SNIPS: {error!r}", hint=__doc__.split("\n\n")[1]) from None


def _decoded(content: bytes) -> str:
    """Most of the published files are UTF-8, and some Latin-1, whose accents are hardly ever valid UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _row(name: str, intent: str, pieces: Sequence[Mapping[str, str]]) -> Row:
    """Blanks are single, in texts and values alike, so that a value is a part of its text; None if a slot has two."""
    slots = [(piece["entity"], _single(piece["text"])) for piece in pieces if "entity" in piece]
    twice = any(count > 1 for count in Counter(slot for slot, _ in slots).values())
    text = _single("".join(piece["text"] for piece in pieces))
    return {"id": name, "input": text, "output": None if twice else {LABEL: intent, **dict(slots)}}


def _single(text: str) -> str:
    return " ".join(text.split())


def _schema(intents: Sequence[str], train: Sequence[Row], test: Sequence[Row]) -> dict[str, Any]:
    """The intent, then every slot as an optional text.

    Answers are written in this order, so slots stand in the order in which training sentences tend to have their
    values: a model that copies then reads on instead of jumping back.
    """
    places: defaultdict[str, list[float]] = defaultdict(list)
    for row in train:
        for slot in row["output"].keys() - {LABEL}:
            places[slot].append(row["input"].find(row["output"][slot]) / len(row["input"]))
    slots = sorted(places, key=lambda slot: (fmean(places[slot]), slot))
    slots += sorted({slot for row in test for slot in row["output"]} - {LABEL, *slots})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {LABEL: {"enum": list(intents)}, **{slot: {"type": "string"} for slot in slots}},
        "required": [LABEL],
        "additionalProperties": False,
    }
