"""How much an answer counts by its class: from the recipe to the loss of a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from slmops.errors import BadInput
from slmops.recipe.objective import ForwardKl, TextTerm
from slmops.recipe.training import TrainSettings
from slmops.train.class_weights import class_weights, weighed
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.objectives.base import View
from slmops.train.objectives.make import make_terms

RARE = Example((1, 2), (3, 4))
COMMON = Example((1,), (5, 6, 7))


def test_balanced_classes_count_the_same_in_all() -> None:
    labels = ["a"] * 6 + ["b"] * 2 + [None]
    weights = class_weights(labels, "balanced")
    assert weights == {"a": pytest.approx(8 / 12), "b": pytest.approx(2.0)}
    assert 6 * weights["a"] == pytest.approx(2 * weights["b"])


def test_examples_are_as_they_were_where_nothing_is_weighed() -> None:
    assert weighed([RARE], ["a"], [ForwardKl(), TextTerm()]) == [RARE]
    assert "counts" not in collate([RARE], pad=0)


def test_an_answer_counts_by_its_class_and_one_without_counts_one() -> None:
    examples = weighed([RARE, COMMON, COMMON], ["rare", "common", None], [TextTerm(class_weights={"rare": 3.0})])
    assert [example.counts for example in examples] == [3.0, 1.0, 1.0]
    assert collate(examples, pad=0)["counts"].tolist() == [3.0, 3.0, *[1.0] * 6]


def test_the_loss_is_the_weighted_mean_of_the_tokens() -> None:
    (term,) = make_terms([TextTerm(class_weights="balanced")])
    batch = collate([replace(RARE, counts=3.0), replace(COMMON, counts=1.0)], pad=0)
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    each = torch.nn.functional.cross_entropy(logits, batch["target"], reduction="none")
    expected = (3 * each[:2].sum() + each[2:].sum()) / 9
    assert float(term.loss(View(logits, batch["target"], counts=batch["counts"]))) == pytest.approx(float(expected))


def test_a_class_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadInput, match="class_weights names refnd") as told:
        class_weights(["refund", "late"], {"refnd": 2.0})
    assert told.value.hint == "classes there: late, refund"


def test_terms_agree_on_what_an_answer_counts() -> None:
    one, other = ({"kind": "text", "class_weights": weights} for weights in ({"a": 2.0}, "balanced"))
    with pytest.raises(ValueError, match="counts the same in all"):
        TrainSettings.model_validate({"objective": [one, other]})
