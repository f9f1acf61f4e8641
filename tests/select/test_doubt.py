"""How unsure the tiny model is: of what it knows by heart, hardly; of anything else, more."""

from __future__ import annotations

import math

import pytest

from slmops.bundle.labels import label_probabilities
from slmops.engines import load_engine
from slmops.engines.base import Sampling
from slmops.progress import Silent
from slmops.select.doubt import doubts
from slmops.tasks import Classification
from tests.conftest import Tiny
from tests.tiny_task import TASK

NEW = "Please send two blue lamps"


@pytest.fixture(scope="module")
def engine(tiny: Tiny):
    return load_engine("transformers", tiny.folder, threads=1)


def weighed(engine, tiny: Tiny, task, texts, work) -> list[float]:
    rows = [{"id": str(i), "input": text} for i, text in enumerate(texts)]
    return doubts(engine, tiny.tokenizer, task, rows, work=work, progress=Silent())


def test_an_answer_known_by_heart_is_not_doubted_and_its_length_does_not_count(engine, tiny, tmp_path):
    *known, new = weighed(engine, tiny, TASK, [*tiny.pairs, NEW], tmp_path)
    assert len({len(answer) for answer in tiny.pairs.values()}) > 1
    assert max(known) < 0.01 < new
    sampling = Sampling(max_tokens=TASK.max_answer_tokens)
    written = [token.top for token in engine.generate([tiny.prompt(NEW)], sampling, top_logits=1)]
    assert new == pytest.approx(-math.fsum(float(top[1][0]) for top in written) / len(written), abs=1e-4)


def test_written_answers_are_kept_for_a_second_call(engine, tiny, tmp_path):
    first = weighed(engine, tiny, TASK, [*tiny.pairs], tmp_path)
    assert weighed(None, tiny, TASK, [*tiny.pairs], tmp_path) == first


def test_of_a_closed_set_the_margin_of_the_two_likeliest_labels_counts(engine, tiny, tmp_path):
    labels = tuple(tiny.pairs.values())
    task = Classification(labels, None, 60)
    found = weighed(engine, tiny, task, [*tiny.pairs, NEW], tmp_path)
    assert max(found[:-1]) < min(0.01, found[-1])
    last, second, *_ = sorted(label_probabilities(engine, tiny.tokenizer, task, [NEW])[0].values(), reverse=True)
    assert found[-1] == pytest.approx(1 - (last - second))
    assert weighed(engine, tiny, task, [], tmp_path) == []
