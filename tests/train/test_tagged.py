"""A student that labels learns to point at values it has never seen."""

from __future__ import annotations

import random

import pytest

from slmops.engines import Sampling, load_engine
from slmops.errors import BadInput
from slmops.models.source import save_model
from slmops.recipe.training import Optimisation
from slmops.train.tagged import check_rows, new_head, tagged_examples
from slmops.train.trainer import collate, train
from tests.tiny_task import TASK

SETTINGS = Optimisation(epochs=12, learning_rate=3e-3, batch_tokens=512, precision="fp32", checkpoint_seconds=1e6)


def rows(seed: int, count: int) -> list[tuple[str, str, dict[str, str]]]:
    rng = random.Random(seed)
    made = []
    for i in range(count):
        order = str(rng.randrange(1000, 10_000))
        late = rng.random() < 0.5
        text = f"Where is order {order}?" if late else f"I want {order} back"
        made.append((str(i), text, {"intent": "order_late" if late else "refund", "order": order}))
    return made


def test_it_points_at_values_that_no_row_had(tiny, tmp_path):
    examples, names = tagged_examples(rows(1, 80), TASK, tiny.tokenizer)
    assert len(names) == 80
    head = new_head(TASK, tiny.tokenizer, 64)
    trained = train(tiny.folder, examples, SETTINGS, work=tmp_path / "work", seed=1, head=head)
    assert trained.history[-1]["text"] < 0.3 * trained.history[0]["text"]
    save_model(trained.model, tmp_path / "model", tokenizer_from=tiny.folder)
    engine = load_engine("transformers", tmp_path / "model", threads=1)
    unseen = rows(2, 30)
    written = [[] for _ in unseen]
    for token in engine.generate([tiny.prompt(text) for _, text, _ in unseen], Sampling(max_tokens=60)):
        written[token.request].append(token.id)
    right = [TASK.parse(tiny.tokenizer.decode(ids)) == row[2] for ids, row in zip(written, unseen, strict=True)]
    assert sum(right) >= 27


def test_labels_stand_at_the_tokens_of_the_second_reading(tiny):
    (example,), _ = tagged_examples([("1", "order 4711", {"intent": "refund", "order": "4711"})], TASK, tiny.tokenizer)
    batch = collate([example], pad=0)
    read = batch["input_ids"][batch["predicts"]].tolist()
    assert tiny.tokenizer.decode(read) == "order 4711"
    assert len(read) == len(batch["target"]) == len(example.labels)


def test_an_answer_that_the_text_does_not_hold_is_left_out(tiny):
    given = [("1", "hello", {"intent": "other"}), ("2", "hello", {"intent": "other", "name": "Zoë"})]
    assert tagged_examples(given, TASK, tiny.tokenizer)[1] == ["1"]


def test_rows_that_cannot_be_marked_are_counted_and_too_many_refused():
    good = {"id": "a", "input": "order 4711", "output": {"intent": "refund", "order": "4711"}}
    bad = {"id": "b", "input": "order 4711", "output": {"intent": "refund", "order": "No. 4711"}}
    assert check_rows([good] * 9 + [bad], TASK) == 1
    with pytest.raises(BadInput, match=r"1 of 2 labelled rows .*\(row b\)"):
        check_rows([good, bad], TASK)
