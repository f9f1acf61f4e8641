"""Presidio beside the rules: checked before anything is read, and asked for names."""

from __future__ import annotations

import pytest

from slmops.errors import BadInput
from slmops.privacy import presidio as room
from slmops.privacy.presidio import check_detector
from slmops.privacy.redaction import redactor
from slmops.recipe.privacy import Presidio, PrivacySettings
from slmops.recipe.teachers import EndpointTeacher
from slmops.recipe.teaching import Budget
from slmops.recipe.writing import Write
from slmops.report.stage import ReportSettings
from slmops.teach.paying import EndpointAsking
from slmops.teach.stage_write import WriteSettings

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


def test_what_reads_the_texts_is_in_the_key_of_what_is_asked_and_of_nothing_else(tmp_path):
    def of(detector: str, url: str, model: str = "en_core_web_sm") -> tuple[str, ...]:
        presidio = Presidio(model=model) if detector == "presidio" else Presidio()
        privacy = PrivacySettings(detector=detector, presidio=presidio)
        teacher = EndpointTeacher(kind="endpoint", base_url=url, model="m")
        asked = EndpointAsking(teacher=teacher, budget=Budget(), privacy=privacy)
        write = WriteSettings(write=Write(rows=1), endpoint=asked)
        assert write.libraries == asked.libraries
        return asked.libraries

    assert of("presidio", REMOTE) == ("presidio-analyzer", "spacy", "en_core_web_sm")
    assert of("presidio", REMOTE, str(tmp_path)) == ("presidio-analyzer", "spacy")
    assert of("rules", REMOTE) == of("presidio", "http://localhost/v1") == ()
    assert ReportSettings(recipe={}, privacy=PrivacySettings(detector="presidio")).libraries
