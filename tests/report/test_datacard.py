"""The data card for the terminal."""

from __future__ import annotations

from slmops.report.datacard import as_text


def test_it_tells_sizes_classes_cost_reasons_and_samples(story):
    lines = as_text(story.curated).splitlines()
    said = "\n".join(" ".join(line.split()) for line in lines)
    for wanted in (
        "learned 1,578 rows",
        "answers 31,337 tokens, 31.0 characters in the middle",
        "bought 212,000 tokens in 1,600 requests, 1.25 USD",
        "agreement 81.0\u00a0% of the answers had every vote".replace("\u00a0", " "),
        "the largest has 1.50 times the rows of the smallest",
        "unparseable pool teach 22",
        "p9: Where is it?",
        "not JSON",
        "Where is order 4711?",
    ):
        assert wanted in said
    classes = lines[lines.index(next(line for line in lines if line.startswith("class"))) + 1 :]
    assert classes[0].startswith(next(iter(story.curated["labels"]))), "the largest class first"


def test_control_characters_are_shown_and_not_obeyed(story):
    samples = [{"id": "p", "input": "a\x1b[31mred", "text": "b\nc"}]
    card = {**story.curated, "samples": samples, "labels": {}, "imbalance": None, "agreement": None, "dropped": []}
    text = as_text(card)
    assert "\x1b" not in text
    assert text.endswith("b c")
    assert "class" not in text
    assert "dropped" not in text
