"""What the student is made of, a part of its teacher or another model, and what the teacher writes with."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from slmops.recipe.training import Carve, StudentSettings, TeachSettings


def test_a_student_is_cut_from_its_teacher_and_another_model_stays_whole_unless_told():
    assert StudentSettings().carve == Carve()
    assert StudentSettings(model="org/name").carve == Carve(layers=None, vocabulary="keep")
    assert StudentSettings(model="org/name", carve=Carve(layers=6)).carve == Carve(layers=6, vocabulary="trim")


@pytest.mark.parametrize("given", [{}, {"model": "org/name"}, {"model": "org/name", "carve": {"layers": 6}}])
def test_what_is_resolved_is_read_again(given):
    student = StudentSettings.model_validate(given)
    assert StudentSettings.model_validate_json(student.model_dump_json()) == student


def test_a_template_is_of_a_model():
    assert StudentSettings(model="org/name", chat_template="plain").chat_template == "plain"
    with pytest.raises(ValidationError, match="the student has its teacher's"):
        StudentSettings(chat_template="plain")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    read = StudentSettings.model_validate
    (tmp_path / "model").mkdir()
    assert read({"model": "./model"}, context={"folder": tmp_path}).model == str(tmp_path / "model")
    with pytest.raises(ValidationError, match="there is no folder"):
        read({"model": "./nowhere"}, context={"folder": tmp_path})


def test_a_teacher_that_is_not_exported_has_no_precision_of_an_export():
    assert TeachSettings(engine="transformers", precision="fp32").engine == "transformers"
    with pytest.raises(ValidationError, match="is of an export"):
        TeachSettings(engine="transformers", precision="int8")
