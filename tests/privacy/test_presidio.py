"""Presidio beside the rules: checked before anything is read, and asked for names."""

from __future__ import annotations

import pytest

from slmops.errors import BadInput
from slmops.privacy import presidio as room
from slmops.privacy.presidio import check_detector
from slmops.privacy.redaction import redactor
from slmops.recipe.privacy import Presidio, PrivacySettings

REMOTE = "https://api.example.com/v1"


def test_what_is_not_installed_is_told_with_the_line_that_installs_it(monkeypatch):
    settings = PrivacySettings(detector="presidio", presidio=Presidio(model="no_such_pipeline"))
    monkeypatch.setattr(room, "find_spec", lambda _: None)
    with pytest.raises(BadInput) as error:
        check_detector(REMOTE, settings)
    assert error.value.hint == "pip install 'slmops[presidio]'"
    check_detector("http://127.0.0.1/v1", settings)
    check_detector(REMOTE, PrivacySettings())
    monkeypatch.setattr(room, "find_spec", lambda name: True if name == "presidio_analyzer" else None)
    with pytest.raises(BadInput, match="there is no spaCy pipeline no_such_pipeline") as error:
        check_detector(REMOTE, settings)
    assert "python -m spacy download no_such_pipeline" in error.value.hint


def test_presidio_finds_a_name_and_the_rules_the_rest(tmp_path):
    pytest.importorskip("presidio_analyzer")
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Anna Berg"}])
    pipeline.to_disk(tmp_path / "pipeline")
    wanted = Presidio(model=str(tmp_path / "pipeline"), entities=["PERSON"])
    finder = redactor(PrivacySettings(detector="presidio", presidio=wanted))
    redaction = finder.redact(["Please write to Anna Berg (anna@berg.example)"])
    assert redaction.texts == ("Please write to [PERSON_1] ([EMAIL_1])",)
    assert redaction.restore("[person_1]!").text == "Anna Berg!"
    with pytest.raises(BadInput, match="Presidio knows no NONSENSE"):
        redactor(PrivacySettings(detector="presidio", presidio=wanted.model_copy(update={"entities": ["NONSENSE"]})))
