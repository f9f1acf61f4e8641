"""What may stand in `train.objective`, and how it comes back."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from slmops.recipe.objective import CustomTerm, ForwardKl, HiddenTerm, Objective, TextTerm, term_names
from slmops.recipe.training import TrainSettings

READ = TypeAdapter(Objective)


def read(given: Any) -> list[Any]:
    return READ.validate_python(given)


def test_one_term_is_a_list_of_one():
    assert read({"kind": "text"}) == read([{"kind": "text"}]) == [TextTerm()]


def test_the_default_is_the_teachers_probabilities_and_its_words():
    assert TrainSettings().objective == [ForwardKl(weight=1.0, temperature=1.0, logits="stored"), TextTerm(weight=0.3)]
    assert TrainSettings().normalise is False


def test_keys_of_a_custom_term_are_arguments_of_its_class():
    (term,) = read({"custom": "house.losses:Contrastive", "margin": 1.0, "weight": 0.5})
    assert term == CustomTerm(kind="custom", custom="house.losses:Contrastive", weight=0.5, arguments={"margin": 1.0})
    assert read([{"custom": "a:B", "arguments": {"weight": 3}, "margin": 2}])[0].arguments == {"weight": 3, "margin": 2}


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "text"},
        {"custom": "house.losses:Contrastive", "margin": 1.0, "names": ["a", "b"]},
        [{"kind": "jsd", "beta": 0.1, "logits": "online"}, {"kind": "hidden", "student_layers": [1]}],
        [{"kind": "span", "temperature": 10.0}, {"kind": "uld", "logits": "online", "weight": 1.5}],
    ],
)
def test_what_is_written_down_is_read_again(given):
    objective = read(given)
    assert READ.validate_json(READ.dump_json(objective)) == objective
    train = TrainSettings(objective=objective)
    assert TrainSettings.model_validate_json(train.model_dump_json()) == train


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "at least 1 item"),
        ({"kind": "kl"}, "does not match any of the expected tags"),
        ({"kind": "text", "temperature": 2.0}, "Extra inputs"),
        ({"kind": "span", "temperature": 0.0}, "greater than 0"),
        ({"kind": "uld", "temperature": 2.0}, "Extra inputs"),
        ({"kind": "jsd", "beta": 1.0}, "less than 1"),
        ({"kind": "hidden", "teacher_layers": [1]}, "needs `student_layers` of the same length"),
        ({"kind": "hidden", "teacher_layers": [1], "student_layers": [0, 1]}, "of the same length"),
        ({"kind": "attention", "student_layers": [1, 1]}, "names a layer twice"),
        ({"kind": "attention", "student_layers": [-1]}, "greater than or equal to 0"),
        ({"custom": "house.losses.Contrastive"}, "pattern"),
        ({"custom": "house.losses:Contrastive", "kind": "text"}, "Extra inputs"),
        ({"kind": "custom"}, "Field required"),
    ],
)
def test_what_is_no_objective_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        read(given)


def test_terms_that_all_count_nothing_are_refused():
    with pytest.raises(ValidationError, match="nothing to learn"):
        TrainSettings(objective=[TextTerm(weight=0)])


def test_terms_of_one_kind_have_names_of_their_own():
    terms = [TextTerm(), ForwardKl(), HiddenTerm(), ForwardKl(temperature=2.0), CustomTerm(kind="custom", custom="a:B")]
    assert term_names(terms) == ["text", "forward_kl", "hidden", "forward_kl_2", "B"]
