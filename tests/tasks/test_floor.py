"""The trivial rival: good where words and shapes suffice, and honest about the rest."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from slmops.tasks import Extraction
from slmops.tasks.patterns import learn_patterns, learn_words

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["refund", "status"]},
        "order": {"type": "string"},
        "product": {"type": "string"},
        "total": {"type": "number"},
        "count": {"type": "integer"},
        "urgency": {"enum": ["high"]},
        "channel": {"type": "string"},
    },
    "required": ["intent", "channel"],
    "additionalProperties": False,
}
PRODUCTS = ("kettle", "desk lamp", "rug")


def row(number: int) -> dict[str, Any]:
    product, urgent = PRODUCTS[number % 3], number % 4 == 0
    what = f"i want my money for the {product}" if number % 2 else f"where is the {product}"
    text = f"{what}, order BL-{1000 + number} of {number + 3} pieces, total {number + 0.5} euro"
    answer = {
        "intent": "refund" if number % 2 else "status",
        "order": f"BL-{1000 + number}",
        "product": product,
        "total": number + 0.5,
        "count": number + 3,
        "channel": "mail",
    }
    if urgent:
        return {"id": str(number), "input": f"{text}. hurry up", "output": {**answer, "urgency": "high"}}
    return {"id": str(number), "input": text, "output": answer}


def test_it_reads_what_shapes_and_words_tell() -> None:
    task = Extraction(SCHEMA, "intent", None, 64)
    answers = task.floor(
        [row(i) for i in range(24)],
        [
            "hurry, i want money for the Desk Lamp, order BL-7777 of 12 pieces, total 99.5 euro",
            "where is the teapot, order BL-42 of 2 pieces",
        ],
    )
    assert answers[0] == {
        "intent": "refund",
        "order": "BL-7777",
        "product": "Desk Lamp",
        "total": 99.5,
        "count": 12,
        "urgency": "high",
        "channel": "mail",
    }
    assert answers[1]["intent"] == "status"
    assert answers[1]["order"] == "BL-42"
    assert "urgency" not in answers[1]
    assert [task.check(answer) for answer in answers] == [None, None]


def test_values_that_break_the_schema_are_not_given() -> None:
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "count": {"type": "integer", "maximum": 100}}}
    task = Extraction(schema, "intent", None, 64)
    (answer,) = task.floor([row(i) for i in range(24)], ["order BL-1 of 5000 pieces"])
    assert "count" not in answer
    assert task.check(answer) is None


def test_without_a_label_in_any_row_none_is_guessed() -> None:
    schema = {**SCHEMA, "required": []}
    train = [{"id": "1", "input": "order 5", "output": {"order": "5"}}]
    assert Extraction(schema, "intent", None, 64).floor(train, ["order 5"]) == [{"order": "5"}]


def test_a_shape_serves_values_never_seen() -> None:
    texts = [f"paid ${20 + i}.{10 + i} in march" for i in range(10)] + ["no sum, 12 rugs"] * 4
    find = learn_patterns(texts, [f"${20 + i}.{10 + i}" for i in range(10)] + [None] * 4, str)
    assert find("it was €77.05, i think") == "€77.05"
    assert find("room 77") is None


def test_a_value_is_found_by_the_words_before_it() -> None:
    texts = [f"my name is {name}, from Leeds" for name in ("Ada Byron", "Tom Reed", "Eva Stone", "Lin Chao")]
    find = learn_patterns(texts, ["Ada Byron", "Tom Reed", "Eva Stone", "Lin Chao"], str)
    assert find("Hello, my name is Omar Haddad.") == "Omar Haddad"


def test_known_values_match_the_longest_first_and_as_whole_words() -> None:
    texts, values = ["a table here", "a table lamp here", "one rug there"], ["table", "table lamp", "rug"]
    find = learn_patterns(texts, values, str)
    assert find("this Table Lamp is fine") == "Table Lamp"
    assert find("what rugged charm") is None


def test_one_example_makes_no_shape() -> None:
    find = learn_patterns(["code 12", "nothing"], ["12", None], str)
    assert find("now 12") == "12"
    assert find("code 77") is None


def test_rules_that_are_often_wrong_are_not_kept() -> None:
    texts = ["code 12", "code 34"] + [f"room {n} is free" for n in range(50, 60)]
    find = learn_patterns(texts, ["12", "34"] + [None] * 10, str)
    assert find("room 77 is free") is None
    assert find("code 77") == "77"
    assert learn_patterns(["the may fair", "in may", "we may go"], [None, "may", None], str)("may i?") is None


def test_words_tell_a_value_only_when_they_nearly_always_do() -> None:
    texts = ["please hurry", "hurry up please", "please help", "thanks, please reply"]
    find = learn_words(texts, ["high", "high", None, None])
    assert find("HURRY!") == "high"
    assert find("please") is None


def test_every_process_learns_the_same_rules() -> None:
    program = (
        "from slmops.samples.tickets import tickets\n"
        "from slmops.tasks.patterns import learn_patterns\n"
        "rows = tickets('train', 150, 1)\n"
        "find = learn_patterns([r['input'] for r in rows[:90]], [r['output'].get('name') for r in rows[:90]], str)\n"
        "print([find(r['input']) for r in rows])\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_a_field_that_was_never_seen_is_never_found() -> None:
    assert learn_patterns(["a", "b"], [None, None], str)("a b") is None
    assert learn_words(["a", "b"], [None, None])("a b") is None
