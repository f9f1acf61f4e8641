"""New rows for the pool, written by a teacher that is shown training rows."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slmops.data.check import Screen
from slmops.errors import BadInput, SlmopsError
from slmops.recipe.writing import Write
from slmops.tasks import Message, ParseFailure, Row, Task
from slmops.teach.asking import Asker, Numbered, Said
from slmops.teach.kinds import WRITING, form_of, text_of
from slmops.teach.lists import items_of

Wanted = Mapping[str | None, int]
"""Rows of each label; of the label None where labels have no numbers."""

_SHOWN = 3


@dataclass
class Written:
    """What a teacher wrote.

    Attributes:
        prefix: of the rows' ids.
        rows: `{"id", "input"}`, and where it was written for a label that as `wanted`.
        dropped: texts that are no rows, with the reason.
        taken: rows by the label that has a number, else by None.
    """

    prefix: str
    rows: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)
    taken: Counter[str | None] = field(default_factory=Counter)


def wanted_rows(settings: Write, train: Sequence[Row], task: Task) -> dict[str | None, int]:
    """How many rows of each label are to be written.

    `balance` fills up the labels that have the fewest training rows, row by row; of equals, the first in the alphabet.

    Raises:
        BadInput: answers have no label, or no training row has one that is asked for.
    """
    if not settings.per_label and not settings.balance:
        return {None: settings.rows or 0}
    name = "per_label" if settings.per_label else "balance"
    labels = Counter(label for row in train if (label := task.label(row["output"])) is not None)
    if not labels:
        raise BadInput(f"teach.write.{name}: an answer of this task has no label", hint="give `rows` alone")
    if odd := sorted(settings.per_label.keys() - labels.keys()):
        raise BadInput(
            f"teach.write.per_label.{odd[0]}: no training row has this label, so there is none to show",
            hint=f"labels of training rows: {', '.join(sorted(labels))}",
        )
    if settings.per_label:
        return dict(sorted(settings.per_label.items()))
    counts, dealt = dict(sorted(labels.items())), Counter[str]()
    for _ in range(settings.rows or 0):
        least = min(counts, key=lambda label: counts[label])
        counts[least] += 1
        dealt[least] += 1
    return {label: dealt[label] for label in counts if dealt[label]}


def longest_bytes(settings: Write, train: Sequence[Row]) -> int:
    """The longest text that is taken, in bytes of UTF-8."""
    return math.floor(settings.max_length * max(len(row["input"].encode()) for row in train))


def write_rows(
    asker: Asker, settings: Write, task: Task, train: Sequence[Row], known: Mapping[str, Sequence[Row]], *, seed: int
) -> Written:
    """Ask in rounds for what is missing, until all is there or the rounds are over.

    Which rows a request shows depends on `seed`, on its label and on how many requests for that label came before, so
    the same call asks the same again.

    Args:
        train: rows that may be shown.
        known: rows by their side, whose texts are not to come again: those of train, validation, test and pool.

    Raises:
        BadInput: see `wanted_rows`.
    """
    screen, out, numbered = Screen(), Written(free_prefix(known.values())), Numbered()
    for side, rows in known.items():
        screen.remember(rows, side)
    missing, longest = wanted_rows(settings, train, task), longest_bytes(settings, train)
    seeds = {label: _Seeds(train, task, label, seed) for label in missing}
    for turn in range(settings.rounds):
        asked = [label for label, rows in missing.items() for _ in range(math.ceil(rows / settings.texts))]
        if not asked:
            break
        shown = [seeds[label].show(settings.shots) for label in asked]
        told = [_label_told(label, rows[0], task, settings) for label, rows in zip(asked, shown, strict=True)]
        requests = [
            numbered.request(ask_for(task, settings, rows, label), settings.max_tokens, _begun(task, rows[0]))
            for rows, label in zip(shown, told, strict=True)
        ]
        replies = asker.ask(requests, f"teacher writes rows, round {turn + 1}", lambda said: _useless(said, task))
        for label, wanted, reply in zip(asked, told, replies, strict=True):
            for text in _texts(reply, task, longest, label, out):
                if missing[label] and _took(text, label, wanted, screen, out):
                    missing[label] -= 1
    return out


def free_prefix(sides: Iterable[Iterable[Row]]) -> str:
    """What the id of no row begins with."""
    prefix, ids = "written", [row["id"] for rows in sides for row in rows]
    while any(id.startswith(prefix) for id in ids):
        prefix = f"_{prefix}"
    return prefix


def check_enough(written: Written, settings: Write, wanted: Wanted) -> None:
    """Refuse what is too little to be what the recipe asks for.

    Raises:
        SlmopsError: says what became of the other texts.
    """
    found = written.taken
    for label, rows in wanted.items():
        if found[label] >= settings.at_least * rows:
            continue
        reasons = Counter(row["reason"] for row in written.dropped if row["wanted"] == label)
        told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(_SHOWN)) or "no reply had a list"
        of = "" if label is None else f" for the label {label}"
        raise SlmopsError(
            f"the teacher wrote {found[label]} of {rows} rows{of} in {settings.rounds} rounds; dropped: {told}",
            hint="raise teach.write.rounds, shots or temperature, ask for fewer rows, or lower at_least; what was "
            "bought is kept",
        )


def ask_for(task: Task, settings: Write, shown: Sequence[Row], label: str | None) -> list[Message]:
    """The request for `settings.texts` texts; see `WRITING` for what it says of each kind of task."""
    description = task.describe()
    kind, lines = WRITING[description["kind"]], ["You write texts for a data set.", ""]
    lines += filter(None, [kind.about, form_of(task)])
    if description["instruction"]:
        lines.append(f"Whoever answers them is told: {json.dumps(description['instruction'], ensure_ascii=False)}")
    lines += ["", "Texts of the data set, as JSON:", *_shown(shown, task, kind.show), ""]
    lines += [_order(settings, kind.harder, kind.easier), *_for_label(label, settings)]
    lines.append(
        "Keep to the language and the style of those above. Repeat none of them, and let no two of yours be alike."
    )
    lines.append(f"Write a JSON array of {settings.texts} {kind.item}. Write nothing else.")
    return [{"role": "user", "content": "\n".join(lines)}]


def _begun(task: Task, row: Row) -> str:
    """The array that is wanted, up to the first character of a member like this row."""
    return "[" + json.dumps(WRITING[task.describe()["kind"]].show(row["input"]))[0]


def _shown(rows: Sequence[Row], task: Task, show: Callable[[str], Any]) -> list[str]:
    """Rows of several labels with these; others as the array that is wanted, since models write what they see."""
    texts = [json.dumps(show(row["input"]), ensure_ascii=False) for row in rows]
    labels = [task.label(row["output"]) for row in rows]
    if len(set(labels)) > 1:
        return [f"- {text} (label: {label})" for text, label in zip(texts, labels, strict=True)]
    of = [] if labels[0] is None else [f"(label: {labels[0]})"]
    return [*of, "[" + ",\n ".join(texts) + "]"]


def _order(settings: Write, harder: str, easier: str) -> str:
    count = settings.texts
    match settings.by:
        case "new":
            return f"Write {count} other texts of this kind, which differ in subject, wording and length."
        case "paraphrase":
            return (
                f"Say the first of them in other words, {count} times. What it means and its answer stay as they are."
            )
        case "harder":
            return f"Make {count} texts of the first of them that are harder to answer: {harder}."
        case "easier":
            return f"Make {count} texts of the first of them that are easier to answer: {easier}."


def _for_label(label: str | None, settings: Write) -> list[str]:
    if label is None:
        return []
    how = "" if settings.by == "new" else " still"
    return [f"The right label of each text of yours is{how}: {label}"]


def _label_told(label: str | None, source: Row, task: Task, settings: Write) -> str | None:
    """The label that texts are asked for: that which has a number, else that of the row which they vary."""
    return task.label(source["output"]) if label is None and settings.by != "new" else label


class _Seeds:
    """Training rows of a label in an order of chance: each comes first once before one comes first again."""

    def __init__(self, train: Sequence[Row], task: Task, label: str | None, seed: int) -> None:
        self._rows = [row for row in train if label is None or task.label(row["output"]) == label]
        self._first = _dealt(self._rows, f"write:{seed}:{label}:first")
        self._others = _dealt(self._rows, f"write:{seed}:{label}:others")

    def show(self, count: int) -> list[Row]:
        """The next rows, no row twice."""
        shown = [next(self._first)]
        while len(shown) < min(count, len(self._rows)):
            row = next(self._others)
            if row not in shown:
                shown.append(row)
        return shown


def _dealt(rows: Sequence[Row], seed: str) -> Iterator[Row]:
    """The rows, shuffled, again and again."""
    rng = random.Random(seed)  # noqa: S311
    while True:
        yield from rng.sample(rows, len(rows))


def _useless(reply: Said, task: Task) -> str | None:
    items = items_of(reply.text)
    if not items:
        return "there is no list of texts in it"
    faults = [text.reason for item in items if isinstance(text := text_of(item, task), ParseFailure)]
    return faults[0] if len(faults) == len(items) else None


def _texts(reply: Said | None, task: Task, longest: int, label: str | None, out: Written) -> list[str]:
    """The texts of a reply that have the task's form; the others are noted as dropped."""
    if reply is None:
        return []
    texts = []
    items = items_of(reply.text)
    if not items:
        _drop(out, reply.text, "no list of texts", label)
    for item in items:
        text = text_of(item, task)
        if isinstance(text, ParseFailure):
            _drop(out, item if isinstance(item, str) else json.dumps(item), text.reason, label)
        elif len(text.encode()) > longest:
            _drop(out, text, f"longer than {longest} bytes", label)
        else:
            texts.append(text)
    return texts


def _took(text: str, label: str | None, wanted: str | None, screen: Screen, out: Written) -> bool:
    """Take a text as a row unless it was there before."""
    row: Row = {"id": f"{out.prefix}-{len(out.rows) + 1}", "input": text}
    before = len(screen.dropped)
    if not list(screen.sift([row], "written")):
        reason = screen.dropped[before]["detail"]
        _drop(out, text, "repeats another written text" if reason == "repeats an earlier row" else reason, label)
        return False
    out.rows.append(row if wanted is None else {**row, "wanted": wanted})
    out.taken[label] += 1
    return True


def _drop(out: Written, text: str, reason: str, label: str | None) -> None:
    out.dropped.append({"input": text, "reason": reason, "wanted": label})
