"""JUnit XML that CI systems accept, whatever a model has written."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.evaluate.junit import junit

relaxed = settings(deadline=None)

# The rules of junit-10.xsd of Jenkins' xUnit plugin for what is used here: element to its attributes (those that must
# be there first) and the elements inside it.
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name"}, {"time", "classname", "group"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
}


def check(element: ElementTree.Element) -> None:
    """Names, attributes and nesting as in the schema, and counts that are right."""
    needed, allowed, inside = SCHEMA[element.tag]
    assert needed <= set(element.keys()) <= needed | allowed, element.tag
    assert {child.tag for child in element} <= inside
    if "tests" in element.keys():  # noqa: SIM118 - an element is no mapping
        cases = list(element.iter("testcase"))
        assert int(element.attrib["tests"]) == len(cases)
        for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            if name in element.attrib:
                assert int(element.attrib[name]) == sum(case.find(tag) is not None for case in cases)
    for child in element:
        check(child)


def gate(state: str, figure: str = "exact_match") -> dict[str, Any]:
    return {"figure": figure, "wanted": "at least 0.92", "state": state, "message": f"{figure}: 0.9 is 0.02 below 0.92"}


def row(passed: bool, written: str = "refund", id: str = "r-1") -> dict[str, Any]:
    return {"id": id, "input": "where?", "wanted": "late", "written": written, "note": None, "passed": passed}


def test_each_state_is_what_a_ci_system_calls_it():
    text = junit(
        [gate("pass"), gate("fail", "field_f1"), gate("not enough evidence", "same_text")], [row(True), row(False)]
    )
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    top = ElementTree.fromstring(text)  # noqa: S314 - our own
    check(top)
    assert (top.get("tests"), top.get("failures"), top.get("errors")) == ("5", "2", "0")
    gates, rows = top
    assert (gates.get("skipped"), gates.get("failures"), rows.get("failures")) == ("1", "1", "1")
    fine, failed, unclear = gates
    assert not list(fine)
    assert failed.find("failure").get("message") == "field_f1: 0.9 is 0.02 below 0.92"
    assert unclear.find("skipped").get("message").startswith("not enough evidence: same_text: ")
    assert fine.get("name") == "exact_match at least 0.92"
    assert rows[1].find("failure").text == "input: where?\nwanted: late\nwritten: refund"


def test_without_gates_and_rows_there_is_a_document_all_the_same():
    top = ElementTree.fromstring(junit([]))  # noqa: S314
    check(top)
    assert [suite.get("name") for suite in top] == ["gates"]


@relaxed
@given(st.lists(st.text(st.characters(codec=None), max_size=20), max_size=5))
def test_whatever_a_model_writes_stays_well_formed(texts):
    """Control characters, halves of surrogate pairs and markup: none may break the document."""
    rows = [row(False, written=text, id=text) for text in [*texts, "\x00\x1b]]><x>&\ud800\uffff"]]
    document = junit([gate("fail", figure="".join(texts))], rows)
    top = ElementTree.fromstring(document.encode())  # noqa: S314
    check(top)
    assert len(list(top.iter("testcase"))) == len(rows) + 1
