"""The final number of a solution, as people write it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.tasks import Maths, ParseFailure, metrics
from slmops.tasks.maths import final_number

TASK = Maths(None, 64)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", 72),
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nTogether 48+24 = <<48+24=72>>72 clips.\n#### 72", 72),
        ("#### 5\nNo, wait.\n#### 1,080", 1080),
        ("#### $18.50", Fraction(37, 2)),
        ("#### -3", -3),
        ("the rest is −4 degrees", -4),
        (r"So $x = \boxed{42}$, not 41.", 42),
        (r"\boxed{7} or rather \boxed{\frac{3}{4}}", Fraction(3, 4)),
        (r"$\boxed{\text{about } 12 \text{ units}}$ in 2024", 12),
        (r"\boxed{-\$1,234.5}", Fraction(-2469, 2)),
        ("The answer is 3/4.", Fraction(3, 4)),
        ("16 / 2", 8),
        ("5-3", 3),
        ("x = -3", -3),
        ("(2)-1", 1),
        ("It takes 12 hours and 30 minutes.", 30),
        ("1,2,3", 3),
        ("50%", 50),
        (".5", Fraction(1, 2)),
        ("1000000.", 1000000),
        ("1/0", 1),
    ],
)
def test_it_is_found_where_people_put_it(text: str, number: Any) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize("text", ["", "none", "x5", r"\boxed{x+y} but 5", "#### unknown, perhaps", "9" * 100])
def test_where_there_is_none_nothing_is_made_up(text: str) -> None:
    assert final_number(text) is None
    failure = TASK.parse(text)
    assert isinstance(failure, ParseFailure)
    assert TASK.judge("5", failure) == {"exact_match": 0, "valid_format": 0}


@given(st.integers(-(10**12), 10**12), st.integers(0, 4))
def test_numbers_are_equal_whatever_their_form(whole: int, digits: int) -> None:
    number = Fraction(whole, 10**digits)
    forms = [f"{whole / 10**digits:,.{digits}f}" if abs(whole) < 10**14 else str(whole), f"#### {number}"]
    forms += [rf"\boxed{{\frac{{{number.numerator}}}{{{number.denominator}}}}}", f"It is {number}."]
    assert {final_number(form) for form in forms} == {number}


def test_near_is_not_equal() -> None:
    assert TASK.judge("0.333", "1/3")["exact_match"] == 0
    assert TASK.judge("1000000", "1000001")["exact_match"] == 0
    assert TASK.judge(72, "it is 72.00")["exact_match"] == 1
    assert TASK.judge(1e21, "1000000000000000000000")["exact_match"] == 1


def test_the_way_there_is_part_of_the_answer() -> None:
    solution = "48 + 24 = 72\n#### 72"
    assert TASK.parse(f" {solution}\n") == solution
    assert TASK.write(solution) == solution
    assert metrics(TASK, [TASK.judge(solution, TASK.parse("72")), TASK.judge(solution, TASK.parse("73"))]) == {
        "exact_match": 0.5,
        "valid_format": 1.0,
    }


@pytest.mark.parametrize("answer", [None, True, [], "seven", {"a": 1}])
def test_what_cannot_be_a_reference_answer(answer: Any) -> None:
    assert TASK.check(answer)


def test_the_floor_is_the_most_frequent_number() -> None:
    outputs: list[Any] = [5, "so #### 4.0", 4, "5 and 4"]
    train = [{"id": str(i), "input": "?", "output": output} for i, output in enumerate(outputs)]
    assert TASK.floor(train, ["x"]) == ["4"]
