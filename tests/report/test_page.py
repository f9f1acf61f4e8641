"""The page needs nothing but itself, and data cannot become markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from slmops.report.figures import quality_and_size
from slmops.report.page import page, verdict
from slmops.report.table import table

EVIL = "<script>alert(1)</script>&\"'"
HISTORY = [{"step": s, "tokens": s * 100, "seconds": s * 1.0, "kl": 2.0 / s, "text": 3.0 / s} for s in (5, 10, 15)]


@pytest.fixture
def arguments(evidence, verdicts) -> dict[str, Any]:
    return {
        "recipe": {"name": "support", "task": {"instruction": EVIL}},
        "evidence": evidence,
        "verdicts": verdicts,
        "table": table(evidence, verdicts),
        "errors": [{"input": EVIL, "wanted": '{"intent":"refund"}', "written": EVIL}],
        "data": {"rows": {"train": 255, "test": 400}, "dropped": {f"pool: {EVIL}": 2}, "labels": {}},
        "carved": {"layers": [0, 2, 5], "tokens": [1, 2, 3, 4], "before": {"layers": 30, "tokens": 49152}},
        "manifest": {"name": "support", "version": "1.0.0", "files": {"model/model.onnx": {"sha256": "ab" * 32}}},
        "histories": {
            "teacher": [{k: v for k, v in entry.items() if k != "kl"} for entry in HISTORY],
            "student": HISTORY,
        },
    }


@pytest.fixture
def html(arguments) -> str:
    return page(arguments.pop("recipe"), **arguments)


class Tags(HTMLParser):
    """Every tag with its attributes; complains when tags are not closed in order."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "li", "td", "th", "tr") and self.open[-1] != tag:
            raise AssertionError(f"</{tag}> closes <{self.open[-1]}>")
        assert self.open.pop() == tag


def test_it_loads_nothing(html):
    tags = Tags(html).found
    assert not {tag for tag, _ in tags} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "video",
        "audio",
    }
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "@import" not in html
    assert not re.search(r"url\(\s*['\"]?(?!#)", html)


def test_data_is_escaped(html):
    assert EVIL not in html
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_the_figures_are_drawn_inline_and_say_what_they_show(html):
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(figures) == 2
    for figure in figures:
        root = ElementTree.fromstring(figure)  # noqa: S314 - our own
        assert root.get("role") == "img"
        assert len(root.get("aria-label") or "") > 20
    assert "student: kl" in figures[1]
    assert "teacher: text" in figures[1]
    assert "teacher: kl" not in figures[1]


def test_the_figures_carry_no_date_so_the_same_run_gives_the_same_page(html, arguments):
    assert page({"name": "support", "task": {"instruction": EVIL}}, **arguments) == html


def test_it_tells_the_story_of_the_run(html, verdicts):
    for said in ("400 held-out rows", "255 rows", "0, 2, 5 of 30", "4 of 49152 tokens", "support 1.0.0", "4321 rows"):
        assert said in re.sub(r"\s+", " ", html)
    for gate in verdicts:
        assert gate["message"] in html


def test_without_errors_and_gates_it_is_whole(arguments):
    arguments |= {"errors": [], "verdicts": []}
    arguments["evidence"]["rows_for_one_point"] = None
    arguments["carved"]["tokens"] = None
    html = page(arguments.pop("recipe"), **arguments)
    Tags(html)
    assert "answers every test row as wanted" in html
    assert "None" not in html


def gate(figure: str, state: str) -> dict[str, str]:
    return {"figure": figure, "state": state, "message": ""}


def test_the_verdict_names_each_gate_that_does_not_pass(evidence):
    passing = gate("exact_match", "pass")
    assert verdict(evidence, [passing]) == "Every gate passes."
    one = verdict(evidence, [passing, gate("parity", "fail")])
    assert one == "Do not ship: parity does not pass."
    two = verdict(evidence, [gate("parity", "fail"), gate("field_f1_kept", "not enough evidence")])
    assert two == "Do not ship: parity, field_f1_kept do not pass."


def test_a_model_that_is_no_better_than_the_floor_is_not_to_be_shipped(evidence):
    for test in evidence["paired"]:
        test["exact_match"]["points"] = 0.0
    assert verdict(evidence, [gate("exact_match", "pass")]) == (
        "Do not ship: the shipped model is no better than the baseline and the floor."
    )


def test_without_gates_the_verdict_is_left_to_the_reader(evidence):
    assert verdict(evidence, []).startswith("No gate was set")


def test_a_released_bundle_that_was_measured_too_has_its_dot(evidence):
    models = {**evidence["models"], "released": evidence["models"]["shipped"]}
    assert "released" in quality_and_size({**evidence, "models": models})
