"""The likelihood of labels, against one that is put together token by token."""

from __future__ import annotations

import numpy as np
import pytest

from slmops.bundle.labels import label_log_likelihoods, label_probabilities, label_tokens
from slmops.engines import load_engine
from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer
from slmops.tasks import Classification, Extraction
from tests.shares import by_score

LABELS = ("order_late", "order_lost", "refund", "invoice", "other")
TEXTS = ["Where is order 4711?", "I want my 20 € back", "What a lovely day", "refund", "Where is it, and why so late?"]


@pytest.fixture(scope="module", params=["transformers", "onnxruntime-genai"])
def engine(request, tiny, tiny_onnx):
    folder = {"transformers": tiny.folder, "onnxruntime-genai": tiny_onnx}[request.param]
    return load_engine(request.param, folder, threads=1)


def full(engine, tokenizer: Tokenizer, task: Classification) -> np.ndarray:
    prompts = [tokenizer.prompt(task.render(text)) for text in TEXTS]
    return by_score(engine, prompts, label_tokens(tokenizer, task, task.labels))


@pytest.mark.parametrize("instruction", [None, "Give the intent of the message in one word."])
def test_a_label_has_its_share_where_nothing_else_may_be_written(engine, tiny, instruction):
    task = Classification(LABELS, instruction, 8)
    found = label_log_likelihoods(engine, tiny.tokenizer, task, TEXTS)
    expected = full(engine, tiny.tokenizer, task)
    # Those that have less than a thousandth together may share it otherwise.
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=2e-3)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_probabilities_add_up_and_follow_the_likelihoods(engine, tiny):
    task = Classification(LABELS, None, 8)
    found = label_probabilities(engine, tiny.tokenizer, task, TEXTS)
    assert [tuple(one) for one in found] == [LABELS] * len(TEXTS)
    expected = np.exp(full(engine, tiny.tokenizer, task))
    np.testing.assert_allclose([list(one.values()) for one in found], expected, atol=2e-3)
    np.testing.assert_allclose([sum(one.values()) for one in found], 1)


def test_a_label_that_begins_another_can_lose(engine, tiny):
    task = Classification(("order", "order_late", "other"), None, 8)
    tokens = label_tokens(tiny.tokenizer, task, task.labels)
    (end,) = tiny.tokenizer.end_ids
    assert all(label[-1] == end for label in tokens)
    assert tokens[1][: len(tokens[0]) - 1] == tokens[0][:-1], "one label's tokens begin the other's"
    found = label_log_likelihoods(engine, tiny.tokenizer, task, TEXTS)
    np.testing.assert_allclose(np.exp(found), np.exp(full(engine, tiny.tokenizer, task)), atol=2e-3)


def test_no_end_token_is_asked_for_where_labels_differ(tiny):
    task = Classification(LABELS, None, 8)
    (end,) = tiny.tokenizer.end_ids
    assert not any(end in label for label in label_tokens(tiny.tokenizer, task, LABELS))


def test_open_answers_have_no_labels(engine, tiny):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    with pytest.raises(BadInput, match="extraction has no labels"):
        label_probabilities(engine, tiny.tokenizer, Extraction(schema, None, None, 8), TEXTS)


def test_no_texts_have_no_probabilities(engine, tiny):
    assert label_probabilities(engine, tiny.tokenizer, Classification(LABELS, None, 8), []) == []
