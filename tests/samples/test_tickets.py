"""The sample's promises: the same every time, honest answers, and held-out sides that share nothing with another."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from itertools import combinations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.samples.tickets import FIELDS, grammar, tickets
from slmops.tasks import Extraction

SIDES = ("train", "validation", "test")
PAIRS = list(combinations(SIDES, 2))
# An alternative of a training sentence; it stays, because choices were made on the validation side as it is.
SHARED = {("train", "validation"): {"the {product} does not start"}}
SCHEMA_FILES = (
    Path(str(files("slmops.samples") / "ticket.schema.json")),
    Path(__file__).parents[2] / "recipes" / "ticket.schema.json",
)
SCHEMA = json.loads(SCHEMA_FILES[0].read_text(encoding="utf-8"))
TASK = Extraction(SCHEMA, "intent", None, 96)


@given(st.sampled_from(SIDES), st.integers(0, 99), st.integers(1, 60), st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_a_larger_number_of_rows_begins_with_the_smaller_ones(side: str, seed: int, few: int, more: int) -> None:
    assert tickets(side, few + more, seed)[:few] == tickets(side, few, seed)


def test_another_seed_makes_other_rows() -> None:
    assert {row["input"] for row in tickets("train", 100, 1)} != {row["input"] for row in tickets("train", 100, 2)}


@pytest.mark.parametrize("side", SIDES)
def test_rows_are_distinct_tickets_of_the_schema(side: str) -> None:
    rows = tickets(side, 600, 7)
    assert len(rows) == 600
    assert len({row["id"] for row in rows}) == 600
    assert len({row["input"].lower() for row in rows}) == 600
    assert not [problem for row in rows if (problem := TASK.check(row["output"]))]


@pytest.mark.parametrize("side", SIDES)
def test_every_value_stands_in_its_message_as_it_is(side: str) -> None:
    for row in tickets(side, 1500, 11):
        values = {name: value for name, value in row["output"].items() if name not in ("intent", "urgency")}
        missing = {name: value for name, value in values.items() if value not in row["input"]}
        assert not missing, row
        assert not re.search(r"[{}\[\]|#~]", row["input"]), f"unexpanded grammar in {row['input']!r}"


@pytest.mark.parametrize("side", SIDES)
def test_every_intent_and_field_occurs_and_intents_are_even(side: str) -> None:
    rows = tickets(side, 650, 3)
    intents = Counter(row["output"]["intent"] for row in rows)
    assert set(intents) == set(grammar(side)["core"])
    assert max(intents.values()) - min(intents.values()) <= 0.25 * 650 / 13
    fields = Counter(name for row in rows for name in row["output"])
    assert all(fields[name] >= 10 for name in FIELDS), fields


def test_out_of_scope_messages_hold_no_fields() -> None:
    rows = [row for side in SIDES for row in tickets(side, 600, 5) if row["output"]["intent"] == "other"]
    assert len(rows) > 50
    assert all(set(row["output"]) == {"intent"} for row in rows)


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("part", ["core", "details", "repeat", "greeting", "closing"])
def test_no_sentence_of_one_side_is_one_of_another(part: str, one: str, other: str) -> None:
    assert not sentences(one, part) & sentences(other, part) - SHARED.get((one, other), set())


def sentences(side: str, part: str) -> set[str]:
    """All that the templates of a part can say, but for the values."""
    groups = grammar(side)[part]
    templates = groups if isinstance(groups, list) else [sentence for group in groups.values() for sentence in group]
    pieces = [re.split(r"\[(.*?)\]", template) for template in templates]
    choices = [[piece.split("|") if i % 2 else [piece] for i, piece in enumerate(parts)] for parts in pieces]
    said = {" ".join("".join(chosen).lower().split()) for parts in choices for chosen in product(*parts)}
    return {sentence.strip(" ?!.,") for sentence in said} - {""}


def test_the_held_out_sides_are_built_alike() -> None:
    validation, test = grammar("validation"), grammar("test")
    assert list(validation) == list(test)
    assert all(list(validation[part]) == list(test[part]) for part in ("core", "details", "repeat", "values"))
    for intent, templates in validation["core"].items():
        assert len(templates) <= len(test["core"][intent]) <= len(templates) + 2, intent


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_value_of_one_side_is_one_of_another(one: str, other: str) -> None:
    ours, theirs = ({name: words(values) for name, values in grammar(side)["values"].items()} for side in (one, other))
    assert set(theirs) <= set(ours)  # a date of the training side may be written with a month's number
    for name in theirs:
        assert not ours[name] & theirs[name], name


def words(values: list[str]) -> set[str]:
    """The values that are words; the others are patterns, filled anew for each message."""
    return {value.lower() for value in values if not re.search(r"[#{]", value)}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_message_or_open_value_of_one_side_is_in_the_rows_of_another(one: str, other: str) -> None:
    ours, theirs = tickets(one, 2000, 7), tickets(other, 400, 7)
    assert not {row["input"].lower() for row in ours} & {row["input"].lower() for row in theirs}
    for name in ("product", "date", "city", "name", "payment"):
        seen = {row["output"][name].lower() for row in ours if name in row["output"]}
        assert not seen & {row["output"][name].lower() for row in theirs if name in row["output"]}, name


def test_no_sentence_states_a_weekday_or_month_that_its_ticket_leaves_out() -> None:
    words = {word.lower() for side in SIDES for name in ("weekday", "month") for word in grammar(side)["values"][name]}
    words -= {"may", "march"}  # also plain verbs
    stated = [
        sentence
        for side in SIDES
        for group in ("core", "details")
        for sentences in grammar(side)[group].values()
        for sentence in sentences
        if words & set(re.findall(r"[a-z]+", sentence.lower()))
    ]
    assert not stated


def test_the_schema_is_the_samples_own() -> None:
    packaged, shown = (path.read_bytes() for path in SCHEMA_FILES)
    assert packaged == shown
    assert SCHEMA["properties"]["intent"]["enum"] == list(grammar("train")["core"])
    assert list(SCHEMA["properties"]) == ["intent", *FIELDS]
    assert SCHEMA["properties"]["urgency"]["enum"] == ["high"]
