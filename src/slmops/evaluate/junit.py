"""Gates and the regression suite as JUnit XML, which every CI system shows.

One test case per gate and per regression row. A gate that fails is a failure, one without enough evidence is skipped
with the reason; either ends `slmops run` with exit code 3. The form is that of the schema of Jenkins' xUnit plugin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document can hold, not even escaped; a model may write it all the same."""


def junit(verdicts: Sequence[Mapping[str, Any]], regression: Sequence[Mapping[str, Any]] = ()) -> str:
    """The document.

    Args:
        verdicts: of `judge_gates`.
        regression: of `answered_again`.
    """
    gates = [_case("slmops.gates", f"{v['figure']} {v['wanted']}", _gate(v)) for v in verdicts]
    rows = [_case("slmops.regression", row["id"], _row(row)) for row in regression]
    suites = [_suite("gates", gates), *([_suite("regression", rows)] if rows else [])]
    counts = _counts([*gates, *rows], ("failure", "error"))
    top = ElementTree.Element("testsuites", {"name": "slmops", "time": "0"} | counts)
    top.extend(suites)
    ElementTree.indent(top)
    return _HEAD + ElementTree.tostring(top, encoding="unicode") + "\n"


_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_COUNTED = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def _suite(name: str, cases: Sequence[ElementTree.Element]) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", {"name": name, "time": "0"} | _counts(cases, tuple(_COUNTED)))
    suite.extend(cases)
    return suite


def _counts(cases: Sequence[ElementTree.Element], outcomes: Sequence[str]) -> dict[str, str]:
    counts = {_COUNTED[outcome]: sum(case.find(outcome) is not None for case in cases) for outcome in outcomes}
    return {"tests": str(len(cases))} | {name: str(count) for name, count in counts.items()}


def _case(group: str, name: str, outcome: ElementTree.Element | None) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=group, name=_plain(name), time="0")
    if outcome is not None:
        case.append(outcome)
    return case


def _gate(verdict: Mapping[str, Any]) -> ElementTree.Element | None:
    match verdict["state"]:
        case "pass":
            return None
        case "fail":
            return _outcome("failure", "gate", verdict["message"])
        case state:
            return _outcome("skipped", state, f"{state}: {verdict['message']}")


def _row(row: Mapping[str, Any]) -> ElementTree.Element | None:
    if row["passed"]:
        return None
    failure = _outcome("failure", "regression", "the answer is not the one that is wanted")
    parts = {name: row[name] for name in ("input", "wanted", "written", "note") if row.get(name)}
    failure.text = "\n".join(f"{name}: {_plain(value)}" for name, value in parts.items())
    return failure


def _outcome(tag: str, kind: str, message: str) -> ElementTree.Element:
    return ElementTree.Element(tag, type=kind, message=_plain(message))


def _plain(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
