"""What the student is made of and healed by, what the teacher writes with, and what is refused when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slmops.errors import BadInput
from slmops.recipe import Recipe, parse_recipe
from slmops.recipe.objective import ForwardKl, HiddenTerm
from slmops.recipe.student import Carve, Heal, StudentSettings
from slmops.recipe.teachers import Asking


def recipe(folder: Path, heal: Any, **student: Any) -> Recipe:
    for name in ("train.jsonl", "test.jsonl", "wiki.txt", "more.jsonl"):
        (folder / name).touch()
    data = {"train": "train.jsonl", "test": "test.jsonl"}
    teachers = [{"model": "wheel:none"}]
    written = {"name": "a", "task": {"kind": "classification"}, "data": data, "teachers": teachers}
    return parse_recipe({**written, "student": {"heal": heal, **student}}, folder=folder)


def test_nothing_is_healed_unless_it_is_asked_for(tmp_path):
    assert recipe(tmp_path, None).student.heal is None


def test_by_default_probabilities_and_states_are_imitated_and_no_words(tmp_path):
    heal = recipe(tmp_path, {}).student.heal
    assert heal is not None
    assert heal.objective == [ForwardKl(logits="online"), HiddenTerm(distance="cosine")]
    assert heal.text is None


@pytest.mark.parametrize(("text", "names"), [("wiki.txt", ["wiki.txt"]), (["more.jsonl", "wiki.txt"],) * 2])
def test_one_file_or_several_and_none_is_shared_with_its_folder(tmp_path, text, names):
    read = recipe(tmp_path, {"text": text})
    assert read.student.heal is not None
    assert read.student.heal.text == [tmp_path / name for name in names]
    assert read.shareable()["student"]["heal"]["text"] == names
    assert str(tmp_path) not in str(read.shareable())


@pytest.mark.parametrize(
    ("heal", "said"),
    [
        ({"text": "nowhere.txt"}, "student.heal.text.0: there is no file"),
        ({"text": []}, "student.heal.text is []"),
        ({"objective": {"kind": "text"}}, "text goes by the words of answers, and this text has none"),
        ({"objective": {"kind": "span", "logits": "online"}}, "span goes by the words of answers"),
        ({"objective": {"kind": "reverse_kl"}}, "reverse_kl goes by stored probabilities"),
        ({"objective": {"kind": "hidden", "weight": 0.0}}, "there is nothing to learn"),
        ({"max_too_long": 0.1}, "`max_too_long`: no block is longer than `length`"),
        ({"length": 1}, "student.heal.length is 1"),
        ({"freeze_layers": 12}, "`heal.freeze_layers` 12 leaves nothing to heal: `carve.layers` keeps 12"),
    ],
)
def test_what_could_not_be_healed_by_is_refused(tmp_path, heal, said):
    with pytest.raises(BadInput) as error:
        recipe(tmp_path, heal)
    assert said in str(error.value)


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
    assert Asking(engine="transformers", precision="fp32").engine == "transformers"
    with pytest.raises(ValidationError, match="is of an export"):
        Asking(engine="transformers", precision="int8")


def test_what_is_not_cut_cannot_be_healed():
    with pytest.raises(ValidationError, match="there is nothing to heal"):
        StudentSettings(model="org/name", heal=Heal())
    # How many layers another model has is not known yet.
    assert StudentSettings(model="org/name", carve=Carve(layers=None, heads=2), heal=Heal(freeze_layers=40)).heal


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"method": "full"}, "trains `method: lora, dora, qlora`, and not `full`"),
        ({"method": "rslora"}, "and not `rslora`"),
        ({"method": "lora", "stop_early": {}}, "`stop_early` is of the trainer here"),
        ({"method": "lora", "tensorboard": True}, "`tensorboard` is of the trainer here"),
        ({"method": "qlora", "freeze_layers": 1}, "in every layer"),
        ({"method": "lora"}, "learns given words alone"),
        ({"method": "lora", "objective": [{"kind": "text"}], "on_policy": {}}, "learns given words alone|on_policy"),
    ],
)
def test_what_olive_does_not_have_is_refused(tmp_path, train, says):
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).touch()
    data = {"train": "train.jsonl", "test": "test.jsonl"}
    written = {"name": "a", "task": {"kind": "classification"}, "data": data, "teachers": [{"model": "wheel:none"}]}
    with pytest.raises(BadInput, match=says):
        parse_recipe({**written, "train": {"backend": "olive", **train}}, folder=tmp_path)
    words = {"backend": "olive", "method": "dora", "objective": {"kind": "text"}}
    made = parse_recipe({**written, "train": words}, folder=tmp_path).train.to_make
    assert made
    assert (made.backend, made.method) == ("olive", "dora")
