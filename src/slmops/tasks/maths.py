"""A problem gets a solution that ends in a number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from slmops.tasks.base import Message, ParseFailure, Row, messages

if TYPE_CHECKING:
    from slmops.tasks.figures import Figure

_NUMBER = re.compile(
    r"(?<![\w.])"  # not the rest of a word or number: the 5 of x5, the 3 of 1.2.3
    r"(?P<sign>(?<![)\]])-)?[$€£]?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<part>\.\d+)?(?:\s?/\s?(?P<below>\d+))?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_MOST_DIGITS = 60


@dataclass(frozen=True)
class Maths:
    """The task of solving a problem whose answer is a number; the way there may be written out.

    Attributes:
        instruction: system message of every request, or None.
        max_answer_tokens: longest answer, in tokens.
    """

    kind: ClassVar[str] = "maths"

    instruction: str | None
    max_answer_tokens: PositiveInt

    def render(self, text: str) -> list[Message]:
        return messages(self.instruction, text)

    def write(self, answer: Any) -> str:
        # A number in a row may be of any size; 1e+21 would be read as a 1 and a 21.
        return format(Decimal(repr(answer)), "f") if isinstance(answer, float) else str(answer).strip()

    def parse(self, text: str) -> Any | ParseFailure:
        """The whole solution: what leads to the number is learned as well."""
        answer = text.strip()
        return answer if final_number(answer) is not None else ParseFailure("no number is in the answer")

    def label(self, answer: Any) -> str | None:  # noqa: ARG002 - answers are no classes
        return None

    def check(self, answer: Any) -> str | None:
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            return f"{str(answer)[:60]!r} is neither a text nor a number"
        return None if final_number(self.write(answer)) is not None else f"no number is in {str(answer)[:60]!r}"

    def judge(self, reference: Any, answer: Any | ParseFailure) -> Mapping[str, float]:
        """`exact_match` of the final numbers, and `valid_format`: there is one."""
        valid = not isinstance(answer, ParseFailure)
        right = valid and final_number(str(answer)) == final_number(self.write(reference))
        return {"exact_match": float(right), "valid_format": float(valid)}

    def figures(self) -> tuple[Figure, ...]:
        """`exact_match` of the final answers, and `valid_format`."""
        from slmops.tasks.figures import share

        return share("exact_match", compared=True), share("valid_format")

    def floor(self, train: Sequence[Row], texts: Sequence[str]) -> list[Any]:
        """The most frequent final number of the training rows."""
        from slmops.tasks.floor import most_frequent

        finals = [final_number(self.write(row["output"])) for row in train]
        return most_frequent([str(number) for number in finals if number is not None], str) * len(texts)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "instruction": self.instruction, "max_answer_tokens": self.max_answer_tokens}


def final_number(text: str) -> Fraction | None:
    r"""The number that a solution ends in: in the last `\boxed{}`, else behind the last `####`, else the last one.

    Thousands separators, currency and percent signs do not count; `3/4` and `\frac{3}{4}` are the number they stand
    for, so that answers are compared as numbers and without rounding. None where there is no number.
    """
    for place in (_boxed(text), text.rpartition("####")[2] if "####" in text else None, text):
        if place is not None:
            return _last_number(place)
    return None


def _boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}`, braces inside it included."""
    _, found, rest = text.rpartition(r"\boxed{")
    depth = 1
    for end, character in enumerate(rest if found else ""):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:end]
    return None


def _last_number(text: str) -> Fraction | None:
    plain = _FRACTION.sub(r" \1/\2 ", text.replace("−", "-").replace(r"\$", "$").replace(r"\!", ""))
    found = [match for match in _NUMBER.finditer(plain) if match["whole"] or match["part"]]
    if not found or len(found[-1][0]) > _MOST_DIGITS:
        return None
    sign, whole, part, below = found[-1].group("sign", "whole", "part", "below")
    number = Fraction(f"{sign or ''}{(whole or '0').replace(',', '')}{part or ''}")
    return number / int(below) if below and int(below) else number
