"""What the evidence means: ship or not, how sure, and why, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slmops.report.pairs import Difference, against_all, difference
from slmops.report.words import figure_name, lower_is_better, p_value, percent, points, prose, shown

MIN_ROWS = 30
"""Fewer test rows than this decide nothing."""

State = Literal["ship", "hold", "unsure", "open"]


@dataclass(frozen=True)
class Verdict:
    """The answer to the reader's question.

    Attributes:
        state: ship; hold (do not ship); unsure (the evidence is too thin); open (nothing was asked of the models).
        title: the answer in one line.
        reasons: full sentences, the most important first.
        subject: the role it is about.
    """

    state: State
    title: str
    reasons: tuple[str, ...]
    subject: str

    def line(self) -> str:
        """One line for a terminal."""
        return f"verdict: {self.title}"


def judge(
    evidence: Mapping[str, Any], gates: Sequence[Mapping[str, Any]], parity: Mapping[str, Any] | None = None
) -> Verdict:
    """The verdict on `shipped`, or on the best of freely named models.

    Parity decides where it fails alone: that a bundle answers as its student does not tell whether that is good enough.
    """
    subject = subject_of(evidence)
    gates = [*gates, *(gate for gate in (parity or {}).get("gates", ()) if gate["state"] != "pass")]
    state, title = _answer(evidence, gates, subject)
    missed = (
        f"Gate not passed: {figure_name(gate['figure'])}, {why(gate)}." for gate in gates if gate["state"] != "pass"
    )
    return Verdict(state, title, (*missed, *_reasons(evidence, subject)), subject)


def why(gate: Mapping[str, Any]) -> str:
    """A gate's message without its figure."""
    message: str = gate["message"]
    return message.removeprefix(f"{gate['figure']}: ")


def subject_of(evidence: Mapping[str, Any]) -> str:
    """The model that the report is about: the shipped one, else the one that is best on the headline."""
    if "shipped" in evidence["models"]:
        return "shipped"
    headline = evidence["headline"]
    scored = {
        role: m["quality"][headline] for role, m in evidence["models"].items() if headline in m.get("quality", {})
    }
    best = min if lower_is_better(headline) else max
    subject: str = best(scored or evidence["models"], key=lambda role: scored.get(role, 0))
    return subject


def reference_of(evidence: Mapping[str, Any], subject: str) -> str | None:
    """The model that `subject` is compared with first: the teacher, else the first one given."""
    others = [role for role in evidence["models"] if role not in (subject, "floor")]
    wanted = evidence.get("reference", "teacher")
    return wanted if wanted in others else next(iter(others), None)


@dataclass(frozen=True)
class Held:
    """One model held against another: what it keeps of its figures and saves of its costs."""

    reference: str
    kept: Mapping[str, Any]
    kept_interval: Mapping[str, Any]
    savings: Mapping[str, Any]


def held(evidence: Mapping[str, Any], subject: str) -> Held:
    """`subject` against the evidence's reference; empty where the two were not held against each other."""
    reference = evidence.get("reference", "teacher")
    said = evidence if evidence.get("ours", "shipped") == subject else evidence.get("others", {}).get(subject, {})
    return Held(reference, *(said.get(part, {}) for part in ("kept", "kept_interval", "savings")))


def resolution_points(evidence: Mapping[str, Any]) -> float | None:
    """The smallest difference that these test rows would show, in points: rows needed grow with its inverse square."""
    needed, rows = evidence["rows_for_one_point"], evidence["n_test"]
    return math.sqrt(needed / rows) if needed and rows else None


def _answer(evidence: Mapping[str, Any], gates: Sequence[Mapping[str, Any]], subject: str) -> tuple[State, str]:
    failed = [gate["figure"] for gate in gates if gate["state"] == "fail"]
    unsure = [gate["figure"] for gate in gates if gate["state"] == "not enough evidence"]
    if failed:
        what = f"{figure_name(failed[0])} misses its gate" if len(failed) == 1 else f"{len(failed)} gates fail"
        return "hold", f"Do not ship: {what}"
    if evidence["floor_beaten"] is False:
        return "hold", f"Do not ship: {_floor(evidence, subject)}"
    if unsure:
        what = figure_name(unsure[0]) if len(unsure) == 1 else f"{len(unsure)} gates"
        return "unsure", f"Not yet: too little evidence for {what}"
    if evidence["n_test"] < MIN_ROWS:
        return "unsure", f"Not yet: {evidence['n_test']} test rows decide nothing"
    if subject != "shipped":
        return _best(evidence, gates, subject)
    if not gates:
        return "open", "Your call: no gate was set"
    return "ship", f"Ship {prose(subject)}"


def _floor(evidence: Mapping[str, Any], subject: str) -> str:
    test = difference(evidence, subject, "floor", evidence["headline"])
    return "a trivial method does better" if test and test.reading == "worse" else "a trivial method does as well"


def _best(evidence: Mapping[str, Any], gates: Sequence[Mapping[str, Any]], subject: str) -> tuple[State, str]:
    """Freely named models: which of them, and whether it is told apart from the next."""
    equal = [test.theirs for test in against_all(evidence, subject, evidence["headline"]) if test.reading != "better"]
    equal = [role for role in equal if role != "floor"]
    if equal:
        rest = f" and {len(equal) - 1} more" if len(equal) > 1 else ""
        return "unsure", f"{subject} is best measured, but not shown to be better than {equal[0]}{rest}"
    return ("ship" if gates else "open"), f"{subject} is best on {figure_name(evidence['headline'])}"


def _reasons(evidence: Mapping[str, Any], subject: str) -> Iterator[str]:
    headline, model = evidence["headline"], evidence["models"][subject]
    if headline in model.get("quality", {}):
        low, high = (shown(headline, end) for end in model["interval"][headline])
        yield (
            f"{prose(subject).capitalize() if subject == 'shipped' else subject} reaches {figure_name(headline)} "
            f"{shown(headline, model['quality'][headline])} on {evidence['n_test']:,} held-out rows "
            f"(95\u00a0% interval {low} to {high})."
        )
    yield from _kept(held(evidence, subject), headline)
    if "floor" in evidence["models"] and (test := difference(evidence, subject, "floor", headline)):
        yield _against(test, "so a language model is worth its cost here", "so nothing here needs a language model")
    elif evidence["floor_beaten"] is None:
        yield "No trivial floor was measured, so nothing shows that a language model is needed."
    # Of like precision: what rounding costs is no fault of the teacher's.
    taught = "student" if "student" in evidence["models"] else subject
    if "baseline" in evidence["models"] and (test := difference(evidence, taught, "baseline", headline)):
        yield _against(test, "so the teacher's answers helped", "so the teacher is not shown to have helped")
    if isinstance(evidence["same_text"], float):
        yield f"Quantising left {percent(evidence['same_text'])} of its answers as they were, letter for letter."
    yield from _speed(held(evidence, subject))
    if resolution := resolution_points(evidence):
        yield (
            f"With {evidence['n_test']:,} rows a difference of about {resolution:.1f} points would show; "
            f"one point would take {evidence['rows_for_one_point']:,} rows."
        )


def _kept(held: Held, headline: str) -> Iterator[str]:
    value = held.kept.get(f"{headline}_kept")
    if isinstance(value, int | float):
        low, high = held.kept_interval[f"{headline}_kept"]
        between = f"95\u00a0% interval {percent(low)} to {percent(high)}"
        yield f"It keeps {percent(value)} of {prose(held.reference)}'s {figure_name(headline)} ({between})."


def _against(test: Difference, if_better: str, if_not: str) -> str:
    said = f"{points(test.points)} points, {points(test.low)} to {points(test.high)}, {p_value(test.p)}"
    it = "Before quantising it" if test.ours == "student" else "It"
    if test.reading == "better":
        return f"{it} beats {prose(test.theirs)} ({said}), {if_better}."
    if test.reading == "worse":
        return f"{it} is worse than {prose(test.theirs)} ({said}), {if_not}."
    return f"{it} is not shown to beat {prose(test.theirs)} ({said}), {if_not}."


def _speed(held: Held) -> Iterator[str]:
    names = {"time_saving_torch": "time", "weights_saving": "weights", "memory_saving": "memory"}
    saved = {word: held.savings.get(name) for name, word in names.items()}
    same = held.savings.get("time_saving_same_engine")
    beside = {"time": "" if same is None else f" ({_more_or_less(same)} on the same engine)"}
    said = [
        f"{_more_or_less(value)} {word}{beside.get(word, '')}" for word, value in saved.items() if value is not None
    ]
    if said:
        yield f"Against {prose(held.reference)} it takes {_listed(said)}."


def _more_or_less(saving: float) -> str:
    return f"{percent(abs(saving), 0)} {'less' if saving >= 0 else 'more'}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
