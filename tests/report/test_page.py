"""The page needs nothing but itself, data cannot become markup, and each chapter says what is known."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from slmops.report.failures import Example, Given, Group
from slmops.report.page import page

EVIL = "<script>alert(1)</script>&\"'"
CHAPTERS = (
    "compare", "tradeoff", "parity", "failures", "regression", "judged", "calibration", "data", "curated",
    "training", "compression", "cost", "method", "lineage", "reproduce",
)  # fmt: skip


class Tags(HTMLParser):
    """Every tag with its attributes, and the text; complains when tags are not closed in order."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    @property
    def text(self) -> str:
        return " ".join("".join(self.said).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.said.append(data)

    def ids(self, tag: str) -> list[str | None]:
        return [attributes.get("id") for name, attributes in self.found if name == tag]


@pytest.fixture
def html(story) -> str:
    return page(story)


def loads_nothing(html: str) -> None:
    tags = Tags(html).found
    loading = {"script", "link", "img", "iframe", "object", "embed", "base", "video", "audio", "form", "input"}
    assert not {tag for tag, _ in tags} & loading
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "@import" not in html
    assert not re.search(r"url\(\s*['\"]?(?!#)", html)


def test_it_loads_nothing(html):
    loads_nothing(html)


def test_chapters_stand_in_the_order_of_a_reader_s_questions(html):
    assert tuple(Tags(html).ids("section")) == CHAPTERS
    targets = [a["href"] for tag, a in Tags(html).found if tag == "a"]
    assert targets == ["#verdict", "#verdict", *(f"#{chapter}" for chapter in CHAPTERS)]


def test_what_is_not_known_has_no_chapter(small_story):
    html = page(small_story)
    assert Tags(html).ids("section") == ["compare", "method"]
    assert "None" not in html
    assert "Undefined" not in html


def test_headings_descend_one_by_one_and_every_table_cell_has_its_heads(html):
    tags = Tags(html).found
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for tag, attributes in tags if tag == "th")


def test_figures_say_what_they_show(html):
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(figures) == 16
    said = []
    for figure in figures:
        root = ElementTree.fromstring(figure)  # noqa: S314 - our own
        assert root.get("role") == "img"
        said.append(root.get("aria-label") or "")
        assert "color" not in (root.get("style") or "")
    assert said[::2] == said[1::2], "the wide and the narrow drawing show the same"
    assert "shipped 0.833, 30.2 MB at 41.3 ms" in said[2]
    assert "teacher −3.8, −6.9 to −0.7" in said[0]


def test_rows_that_failed_once_show_what_is_answered_now(html):
    text = Tags(html).text
    assert "now answers 1 of 2 rightly" in text
    assert "ticket 88" in text


def test_a_judge_s_opinion_is_told_apart_from_what_is_measured(html):
    text = Tags(html).text
    assert "An opinion, not a measurement: acme/judge (on an endpoint) compared the answers" in text
    assert "with those of the last released version, each pair in both orders" in text
    assert "win rate0.250.149–0.388" in text
    assert "agrees with itself in 78 % of 36 cases (both orders); of its choices, 55 % fell on" in text


def test_grades_stand_beside_the_other_model_s_and_an_unreliable_judge_is_called_so(story):
    graded = {
        "judge": "acme/judge", "where": "this machine", "mode": "rubric", "against": "teacher", "rows": 9,
        "readable": 6, "unreadable": 3, "reliable": False, "why": "3 of 9 verdicts cannot be read; 10% may be",
        "figures": {"clear": 4.5}, "interval": {"clear": [4.1, 4.9]}, "theirs": {"clear": 4.75}, "scale": 4.0,
        "agreement": {"how": "graded twice", "share": None, "rows": 0, "interval": None},
    }  # fmt: skip
    text = Tags(page(replace(story, evidence=story.evidence | {"judged": graded}))).text
    assert "Not to be relied on: 3 of 9 verdicts cannot be read" in text
    assert "clear4.504.754.10–4.90" in text


def test_the_same_story_gives_the_same_bytes(html, story):
    assert page(story) == html


def test_it_tells_the_story_of_the_run(story):
    text = Tags(page(story)).text
    for said in (
        "Ship the quantised student",
        "All 4 gates pass",
        "0.833 on 400 held-out rows (95 % interval 0.798 to 0.864)",
        "95.6 % of the teacher's exact match",
        "at least 0.92",
        "against the teacher",
        "12 of 30 layers",
        "2 of 3 key-value heads (6 of 9 query heads)",
        "1,024 of 1,536 channels",
        "2,903 of 49,152 tokens: 30,004,416 of 134,515,008 weights",
        "1,578 answers of the teacher",
        "healed: in 20 min 34 s it learned on 200,064 tokens of text without answers",
        "from 2.03 to 1.10 nats per token, its perplexity from 88.1 to 30.9, where that of the uncut model is 17.2.",
        "contaminated",
        "81.0 % of the answers had every vote",
        "The largest class has 1.50 times the rows of the smallest",
        "212,000 tokens in 1,600 requests, 1.25 USD",
        "31.0 characters; nine of ten have 18.0 to 77.0",
        "Energy, estimated: processor time × 15 W per core",
        "Most frequent mistakes",
        "Lost: the teacher is right",
        "support 1.0.0",
        "30.2 MB",
        "ab" * 32,
        "a processor, 2 cores, 25.0 GB of memory",
        "about 3.3 points would show",
        "slmops run recipe.yaml",
        "block_size: 64",
    ):
        assert said in text, said


def test_a_student_that_is_not_narrower_says_nothing_of_width(story):
    carved = {**story.carved, "heads": None, "channels": None}
    text = Tags(page(replace(story, carved=carved))).text
    assert "12 of 30 layers (0, 1, 2, 3, 4, 5, 6, 7, 8, 27, 28, 29), and 2,903 of 49,152 tokens" in text
    assert "heads" not in text
    assert "channels" not in text


def test_each_figure_stands_with_its_interval_and_the_best_is_marked(html):
    (row,) = re.findall(r'<tr class="main">.*?</tr>', html, re.DOTALL)
    cells = re.findall(r'<td class="([^"]*)">([^<]*)<small>([^<]*)</small>', row)
    assert cells[0] == ("num mine", "0.833", "0.798–0.864")
    assert cells[1] == ("num best", "0.871", "0.836–0.902")
    assert sum("best" in kind for kind, *_ in cells) == 1


def test_failing_gates_are_said_first_and_why(held_story):
    html = page(held_story)
    text = Tags(html).text
    assert "Do not ship: time saving same engine misses its gate" in text
    assert "2 of 3 gates do not pass" in text
    assert text.index("0.897 is 0.053 below 0.95") < text.index("reaches exact match")
    assert html.count('class="why"') == 2


def test_a_confusion_matrix_of_many_labels_keeps_to_the_most_confused(story):
    many = [f"label {i}" for i in range(77)]
    counts = [[20 if i == j else 0 for j in range(78)] for i in range(77)]
    counts[3][5], counts[9][77] = 7, 2
    model = story.evidence["models"]["shipped"] | {"confusion": {"labels": many, "counts": counts}}
    evidence = story.evidence | {"models": story.evidence["models"] | {"shipped": model}}
    html = page(replace(story, evidence=evidence))
    assert html.count('class="turned"') == 17
    assert "label 3</strong> taken for <strong>label 5</strong> (7)" in html


def poisoned(story: Any, text: str) -> Any:
    """The story with `text` wherever data, models and people can put one."""
    evidence = story.evidence
    shipped = evidence["models"]["shipped"]
    labels = [text, *shipped["confusion"]["labels"][1:]]
    shipped = {
        **shipped,
        "energy_method": text,
        "classes": [{**one, "label": text} for one in shipped["classes"]],
        "confusion": {**shipped["confusion"], "labels": labels},
    }
    machine = {"processor": text, "system": text}
    example = Example(text, text, text, (Given("shipped", text, text, 0.0, False),))
    return replace(
        story,
        name=text,
        evidence={**evidence, "machine": machine, "models": {**evidence["models"], "shipped": shipped}},
        gates=[{**gate, "message": text, "state": "fail"} for gate in story.gates],
        recipe={**story.recipe, "instruction": text},
        data={"rows": {text: 1}, "dropped": {text: 2}, "labels": {"train": {text: 1}, "test": {}}},
        curated={
            **story.curated,
            "labels": {text: {"train": 1, "answers": 1}},
            "dropped": [
                {
                    "stage": text,
                    "side": text,
                    "reason": text,
                    "rows": 1,
                    "examples": [dict.fromkeys(("id", "input", "text", "detail", "like"), text)],
                }
            ],
            "samples": [dict.fromkeys(("id", "input", "text"), text)],
        },
        examples=[Group(text, 1, (example,))],
        front=story.front | {"figure": "f1", "candidates": [{**c, "name": text} for c in story.front["candidates"]]},
        manifest={**story.manifest, "files": {text: {"sha256": text, "size": 1}}},
        command=text,
    )


def test_markup_in_data_stays_text(story):
    html = page(poisoned(story, EVIL))
    loads_nothing(html)
    assert EVIL not in html
    assert "<script" not in html
    assert Tags(html).text.count("<script>alert(1)</script>") >= 15


HIDDEN = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]"
TRICKS = [
    "<",
    ">",
    "&",
    '"',
    "'",
    "{{",
    "}}",
    "{%",
    "</style>",
    "</svg>",
    "]]>",
    "-->",
    "\x00",
    "\x1b",
    "\u202e",
    "\ud800",
    "\r",
]


def test_no_text_whatever_breaks_the_page(story):
    # Inside, so that a failure shows the text and not the whole story, and as it was found: a page takes a while.
    @settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
    @example(text="".join(TRICKS))
    @given(text=st.lists(st.sampled_from(TRICKS) | st.text(max_size=6), min_size=1, max_size=8).map("".join))
    def check(text: str) -> None:
        html = page(poisoned(story, text))
        html.encode()
        loads_nothing(html)
        for figure in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
            ElementTree.fromstring(figure)  # noqa: S314 - our own
        assert re.search(HIDDEN, html) is None
        assert tuple(Tags(html).ids("section")) == CHAPTERS

    check()


def test_models_under_free_names_in_any_number(small_story, minimal):
    models = {f"model-{i}": minimal["models"]["gpt"] for i in range(9)}
    html = page(replace(small_story, evidence={**minimal, "models": models, "paired": []}))
    assert all(name in html for name in models)


def test_rows_on_which_bundle_and_student_differ_are_shown(story):
    text = Tags(page(story)).text.replace("\u00a0", " ")
    assert "48 test rows went through the bundle (onnxruntime-genai, int4)" in text
    assert "row-9: 75.0 % alike, 0.21 nats apart" in text
    assert "exchange <now>" in text
    failing = [gate | {"state": "fail"} for gate in story.parity["gates"]]
    text = Tags(page(replace(story, parity=story.parity | {"gates": failing, "measured": None}))).text
    assert "Do not ship: 2 gates fail" in text
    assert "row-9" not in text


def test_it_says_what_a_cut_of_the_vocabulary_did_to_the_rows(story):
    assert "spells" not in Tags(page(story)).text
    cut = {"prompts": 3, "answers": 1, "tokens": 7478, "tokens_before": 49152, "lost": 0.0021}
    text = Tags(page(replace(story, parity=story.parity | {"cut": cut}))).text
    assert "Of 49152 tokens the bundle has 7478" in text
    assert "3 of the requests and 1 of the student's answers in smaller pieces" in text
