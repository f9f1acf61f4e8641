"""Customer messages with the ticket each one holds: the demo's data, made from a small grammar.

The grammar (`tickets.yaml`) has three sides: one to learn from and two held out. `test` shares neither a sentence nor
a value with the others, and `validation` one sentence with the side to learn from, so held-out rows measure whether a
model reads a message, not whether it remembers one. Choices are made on rows of `validation`, because the better of two
choices looks better than it is on the rows that chose it; `test` is left for figures that are published.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

Row = dict[str, Any]

FIELDS = ("order", "product", "amount", "date", "city", "name", "payment", "urgency")
_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(~?)(\w+)\}")
_TYPO_SHARE = 0.15
_LOWER_SHARE = 0.2


@cache
def grammar(side: str) -> dict[str, Any]:
    """The grammar of one side: `train`, `validation` or `test`.

    Raises:
        KeyError: there is no such side.
    """
    text = files("slmops.samples").joinpath("tickets.yaml").read_text(encoding="utf-8")
    sides: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return sides[side]


def tickets(side: str, rows: int, seed: int) -> list[Row]:
    """`rows` distinct messages of one side, each `{"id", "input", "output"}`.

    Intents are equally frequent. The same side and seed give the same rows, and a larger
    number of rows begins with the smaller one's.
    """
    made: dict[str, Row] = {}
    if rows == 0:
        return []
    for row in _stream(side, random.Random(f"{side}:{seed}")):
        made.setdefault(row["input"].lower(), row)
        if len(made) == rows:
            break
    return [{"id": f"{side}-{seed}-{i}", **row} for i, row in enumerate(made.values())]


def _stream(side: str, rng: random.Random) -> Iterator[Row]:
    rules = grammar(side)
    intents = list(rules["core"])
    while True:
        rng.shuffle(intents)
        for intent in intents:
            yield _message(rules, intent, rng)


def _message(rules: dict[str, Any], intent: str, rng: random.Random) -> Row:
    core = rng.choice(rules["core"][intent])
    used = {name for _, name in _SLOT.findall(core)}
    parts = [core]
    if intent != "other":
        free = [field for field in FIELDS if field in rules["details"] and field not in used]
        chosen = rng.sample(free, k=min(len(free), rng.choice([0, 0, 1, 1, 2, 2])))
        parts += [rng.choice(rules["details"][field]) for field in chosen]
        used |= set(chosen)
        repeatable = sorted(used & set(rules["repeat"]))
        if repeatable and rng.random() < 0.12:
            parts.append(rng.choice(rules["repeat"][rng.choice(repeatable)]))
        if rng.random() < 0.25:
            parts.append(rng.choice(rules["details"]["none"]))
        core_first = rng.random() < 0.7
        tail = parts[1:]
        rng.shuffle(tail)
        parts = [core, *tail] if core_first else [*tail[:1], core, *tail[1:]]
    values = {field: _value(rules, field, rng) for field in FIELDS if field != "urgency"}
    text = _punctuate([_vary(part, rng) for part in _framed(rules, parts, rng)], rng)
    lower = rng.random() < _LOWER_SHARE
    if lower:
        text, values = text.lower(), {field: value.lower() for field, value in values.items()}
    ticket = {"intent": intent}
    for field in FIELDS:
        if field == "urgency":
            if "urgency" in used:
                ticket["urgency"] = "high"
        elif any(not hidden and name == field for hidden, name in _SLOT.findall(text)):
            ticket[field] = values[field]
    return {"input": _SLOT.sub(lambda slot: values[slot[2]], text), "output": ticket}


def _framed(rules: dict[str, Any], parts: list[str], rng: random.Random) -> list[str]:
    """The parts with a greeting before and a closing after them, now and then."""
    before = rng.choice(rules["greeting"]) if rng.random() < 0.4 else ""
    after = rng.choice(rules["closing"]) if rng.random() < 0.3 else ""
    return [part for part in (before, *parts, after) if part]


def _vary(part: str, rng: random.Random) -> str:
    """One sentence with its alternatives chosen, its capital set and perhaps a typo."""
    while match := _ALTERNATIVES.search(part):
        part = part[: match.start()] + rng.choice(match[1].split("|")) + part[match.end() :]
    part = re.sub(r"\s+", " ", part).strip()
    if rng.random() < _TYPO_SHARE:
        part = _typo(part, rng)
    return part if part.startswith("{") else part[0].upper() + part[1:]


def _typo(part: str, rng: random.Random) -> str:
    """`part` with one slip inside one of its words; slots stay whole."""
    words = part.split(" ")
    spots = [i for i, word in enumerate(words) if word.isalpha() and len(word) > 3]
    if not spots:
        return part
    i = rng.choice(spots)
    word, at = words[i], rng.randrange(1, len(words[i]) - 1)
    slips = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    )
    words[i] = rng.choice(slips)
    return " ".join(words)


def _punctuate(parts: list[str], rng: random.Random) -> str:
    marks = ["."] if rng.random() < 0.75 else [",", "", "!", " -"]
    ended = [part if part[-1] in "?!.)" else part + rng.choice(marks) for part in parts]
    return " ".join(ended).strip(" ,-")


def _value(rules: dict[str, Any], field: str, rng: random.Random) -> str:
    """A value of `field`: a word from its list, with `#` as digits and `{list}` as a nested choice."""
    value: str = rng.choice(rules["values"][field])
    value = _SLOT.sub(lambda slot: rng.choice(rules["values"][slot[2]]), value)
    value = re.sub(r"(?<![#\d])#", lambda _: str(rng.randint(1, 9)), value)
    return re.sub("#", lambda _: str(rng.randint(0, 9)), value)
